# SPDX-License-Identifier: GPL-2.0-only
"""Whatever ends the command is one error with a documented exit code, and no traceback."""

import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from twinmod.base import bugs, process, templates
from twinmod.base.process import Command
from twinmod.bench import compare
from twinmod.cells import report as cells_report
from twinmod.errors import ConfigError, ExitCode
from twinmod.ui import cli


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def run(act: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = cli.run_guarded(act)
    return code, capsys.readouterr().err


def dig(depth: int) -> int:
    return 1 + dig(depth + 1)


RAISING: dict[str, Callable[[], object]] = {
    "a key": lambda: cells_report.plan_totals({}),
    "recursion": lambda: dig(0),
    "text": b"\xff".decode,
    "json": lambda: json.loads("{"),
    "the end of a file": lambda: click.Command("x", callback=next_byte).main(
        [], standalone_mode=False
    ),
    "no memory": lambda: bytes(2**62),
}


def next_byte() -> None:
    raise EOFError("the archive ends early")


@pytest.mark.parametrize("name", RAISING)
def test_what_nobody_expected_asks_for_a_report_of_the_bug(
    name: str, capsys: pytest.CaptureFixture[str], temporary: Path
) -> None:
    code, text = run(RAISING[name], capsys)
    assert (code, int(ExitCode.INTERNAL)) == (ExitCode.INTERNAL, 70)
    assert text.lstrip().startswith("error: twinmod itself failed: ")
    assert text.count("error:") == 1
    assert "Traceback" not in text
    assert f"version:   {templates.read_version()}, Python 3." in text
    assert "please report it" in text
    (kept,) = temporary.iterdir()
    assert f"traceback: {kept}\n" in text
    assert "Traceback (most recent call last)" in kept.read_text()


def test_the_error_names_the_line_and_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = run(RAISING["a key"], capsys)
    assert "twinmod itself failed: KeyError: 'passed'\n" in text
    assert "where:     cells/report.py:" in text
    assert " in plan_totals\n" in text


def test_words_of_several_lines_are_one_and_end_somewhere() -> None:
    assert bugs.render_words(ValueError("a\n  b")) == "ValueError: a b"
    assert bugs.render_words(StopIteration()) == "StopIteration"
    assert len(bugs.render_words(ValueError("x" * 10**6))) < 300


def test_a_traceback_that_cannot_be_kept_is_said_so(
    capsys: pytest.CaptureFixture[str], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nowhere"))
    code, text = run(RAISING["a key"], capsys)
    assert code == ExitCode.INTERNAL
    assert "traceback: not kept: No such file or directory\n" in text


def test_an_interruption_is_still_one(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert run(interrupt, capsys) == (ExitCode.INTERRUPTED, "interrupted\n")


# -- whoever reads the output ------------------------------------------------------------------

#: A program of one verb that prints more than a pipe holds, and what is to be read of it.
PRINT = """\
import sys
import click
from rich.table import Table
from twinmod.ui import cli
from twinmod.base import progress
def echo():
    for _ in range(20_000):
        click.echo("0123456789" * 10)
def table():
    rows = Table()
    for number in range(5_000):
        rows.add_row("0123456789" * 10)
    progress.Console().print(rows)
verb = click.Command("verb", callback={"echo": echo, "table": table}[sys.argv[1]])
sys.argv[1:] = []
sys.exit(cli.run_guarded(lambda: verb.main(standalone_mode=False)))
"""


def run_shell(line: str) -> str:
    argv = ("bash", "-c", line)
    return process.run(Command(argv=argv, purpose="the pipe", timeout_s=60))


@pytest.mark.skipif(process.find_program("bash") is None, reason="this host has no bash")
@pytest.mark.parametrize("how", ["echo", "table"])
def test_a_reader_who_leaves_early_ends_the_command_quietly(how: str) -> None:
    program = shlex.join((sys.executable, "-c", PRINT, how))
    left = f'{program} 2>&3 | head -c 1 >/dev/null; echo "status ${{PIPESTATUS[0]}}"'
    assert run_shell(f"{{ {left}; }} 3>&1") == "status 141\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this host has no /dev/full")
def test_output_that_cannot_be_written_is_one_error_of_the_environment() -> None:
    program = shlex.join((sys.executable, "-c", PRINT, "echo"))
    output = run_shell(f"{program} 2>&1 >/dev/full; echo status $?")
    assert output.startswith("error: the system refused: No space left on device\n")
    assert output.endswith("status 3\n")
    assert "Exception ignored" not in output


def test_a_name_that_is_no_text_is_printed_all_the_same() -> None:
    script = (
        "import sys, click; from twinmod.ui import cli; "
        "sys.exit(cli.run_guarded(lambda: click.echo('a\\udcff')))"
    )
    argv = (sys.executable, "-c", script)
    environment = (("PYTHONIOENCODING", "utf-8"),)
    command = Command(argv=argv, purpose="the name", timeout_s=60, environment=environment)
    assert process.run(command) == "a\\udcff\n"


# -- an earlier report to compare with ---------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"[" * 100_000, b"null", b"7"],
    ids=["no text", "too deep", "null", "a number"],
)
def test_a_file_that_is_no_report_is_a_wrong_argument(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no report of a benchmark"):
        compare.parse_report(content, str(tmp_path / "old.json"))

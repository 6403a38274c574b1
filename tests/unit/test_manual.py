# SPDX-License-Identifier: GPL-2.0-only
"""The manual page and the shells' completion are those of the command as it is."""

import os
import shlex
import sys
from pathlib import Path

import msgspec
import pytest

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.errors import ExitCode
from twinmod.project import config, tables
from twinmod.project.tables import Keys
from twinmod.ui import cli, manual, reference

CHECKOUT = Path(__file__).resolve().parents[2]

PAGE_PATH = CHECKOUT / "docs/man/twinmod.1"


def run(*argv: str, environment: tuple[tuple[str, str], ...] = ()) -> str:
    command = Command(argv=argv, purpose=argv[0], timeout_s=30, environment=environment)
    return process.run(command)


def test_the_manual_page_is_that_of_the_command() -> None:
    made = manual.render_manual(cli.cli)
    assert PAGE_PATH.read_text() == made, "twinmod manual > docs/man/twinmod.1"


def test_every_verb_and_option_is_in_the_manual() -> None:
    verbs = {verb.name: verb for verb in manual.list_verbs(cli.cli)}
    assert {"build", "test", "new", "completion", "cache list", "cache prune"} <= verbs.keys()
    assert "manual" not in verbs
    assert verbs["build"].usage == "[OPTIONS] [MODULE]..."
    shown = PAGE_PATH.read_text()
    for verb in verbs.values():
        assert f".SS twinmod {manual.escape_roff(verb.name)} " in shown
        assert verb.text
        for name, text in verb.options:
            assert f".B {manual.escape_roff(name)}\n{manual.escape_roff(text)}\n" in shown


def test_the_page_of_the_configuration_is_that_of_its_tables() -> None:
    made = reference.render_page(config.read_builtin())
    page = "docs/configuration.md"
    assert (CHECKOUT / page).read_text() == made, f"twinmod manual --configuration > {page}"


@pytest.mark.parametrize(("name", "table"), reference.TABLES)
def test_every_key_of_the_configuration_is_described(name: str, table: type[Keys]) -> None:
    text, described = tables.split_docstring(table)
    assert text, name
    assert list(described) == [field.encode_name for field in msgspec.structs.fields(table)]
    assert all(words.endswith(".") for words in described.values())


def test_every_table_of_the_configuration_is_on_the_page() -> None:
    shown = {table for _, table in reference.TABLES}
    every = {
        one for one in vars(tables).values() if isinstance(one, type) and issubclass(one, Keys)
    }
    assert shown == every - {Keys}


def test_every_exit_code_is_in_the_manual() -> None:
    assert set(manual.MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a-b", r"a\-b"), (".TH", r"\&.TH"), ("'x", r"\&'x"), ("a\\n", r"a\en"), ("", "")],
)
def test_text_is_no_request_to_roff(text: str, escaped: str) -> None:
    assert manual.escape_roff(text) == escaped


@pytest.mark.skipif(process.find_program("groff") is None, reason="this host has no groff")
def test_roff_has_nothing_to_say_about_the_page() -> None:
    # -z: what it would print is not wanted, what it warns of is.
    assert run("groff", "-man", "-ww", "-z", "-Tutf8", str(PAGE_PATH)) == ""


@pytest.mark.parametrize("shell", manual.SHELLS)
def test_a_shells_script_asks_the_command(shell: str) -> None:
    text = manual.render_completion(cli.cli, shell)
    assert f"_TWINMOD_COMPLETE={shell}_complete" in text
    if process.find_program(shell) is not None:
        assert run(shell, "-n", "-c", text) == ""


@pytest.mark.parametrize("shell", manual.SHELLS)
def test_a_shells_script_is_what_click_itself_gives(shell: str) -> None:
    program = "import sys; sys.argv = ['twinmod']; from twinmod.ui import cli; cli.main()"
    asked = (("_TWINMOD_COMPLETE", f"{shell}_source"),)
    found = run(sys.executable, "-c", program, environment=asked)
    assert manual.render_completion(cli.cli, shell) == found.strip()


def test_a_bash_too_old_to_complete_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bash = tmp_path / "bash"
    bash.write_text("#!/bin/sh\necho 3.2.57\n")
    bash.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    manual.render_completion(cli.cli, "bash")
    assert "older than 4.4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("twinmod", "cou"), ("counter",)),
        (("twinmod", "build", "--s"), ("--show",)),
        (("twinmod", "build", "r"), ("rust",)),
        (("twinmod", "manu"), ()),
    ],
)
def test_the_command_completes_what_bash_asks_for(
    words: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    argv = (
        sys.executable,
        "-c",
        "import sys; sys.argv = ['twinmod']; from twinmod.ui import cli; cli.main()",
    )
    asked = (
        ("_TWINMOD_COMPLETE", "bash_complete"),
        ("COMP_WORDS", " ".join(words)),
        ("COMP_CWORD", str(len(words) - 1)),
    )
    found = run(*argv, environment=asked).split()
    assert tuple(line.split(",")[1] for line in found) == expected


@pytest.mark.skipif(process.find_program("bash") is None, reason="this host has no bash")
def test_bash_itself_completes_with_the_script(tmp_path: Path) -> None:
    text = "import sys; sys.argv[0] = 'twinmod'; from twinmod.ui import cli; cli.main()"
    program = tmp_path / "twinmod"
    # The path of an interpreter on a first line may have no space.
    program.write_text(f'#!/bin/sh\nexec {shlex.join((sys.executable, "-c", text))} "$@"\n')
    program.chmod(0o755)
    script = manual.render_completion(cli.cli, "bash") + (
        "\nCOMP_WORDS=(twinmod repl) COMP_CWORD=1\n_twinmod_completion twinmod repl twinmod\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert run("bash", "-c", script, environment=(("PATH", path),)).split() == ["replay"]

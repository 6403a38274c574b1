# SPDX-License-Identifier: GPL-2.0-only
"""What the documents point to is there."""

import errno
import os
import re
import sys
import textwrap
from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.guest.collection import PLUGIN
from twinmod.guest.testing import programs

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").glob("*.md"))]

#: A link to a file, without its part of the page.
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")

#: A file of the package, as a sentence or a comment names it.
NAMED = re.compile(r"toolchain/twinmod/[\w/]+\.\w+")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_that_a_page_links_to_or_names_is_there(path: Path) -> None:
    text = path.read_text()
    linked = {(path.parent / name).resolve() for name in LINK.findall(text)}
    named = {CHECKOUT / name for name in NAMED.findall(text)}
    assert [str(found) for found in sorted(linked | named) if not found.exists()] == []


def test_pages_link_to_files() -> None:
    assert sum(len(LINK.findall(path.read_text())) for path in PAGES) > 20


# -- what a page shows as Python --------------------------------------------------------------

BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

#: A file of tests that a page tells the reader to make.
TEST_FILE = re.compile(r"`(tests/matrix/test_\w+\.py)`")


def read_blocks(text: str) -> list[tuple[str, str]]:
    """Return (the file that is named last before it, code) of each block of Python."""
    blocks = []
    for block in BLOCK.finditer(text):
        names = TEST_FILE.findall(text, 0, block.start())
        blocks.append((names[-1] if names else "", textwrap.dedent(block[2])))
    return blocks


RUFF = [("check",), ("format", "--diff")]


def check_with_ruff(arguments: tuple[str, ...], name: str, path: Path) -> None:
    """Let ruff look at a file as if it stood in the checkout under another name."""
    # What is allowed there, and what is our own to import.
    ruff = (sys.executable, "-m", "ruff", *arguments, "--no-cache", "--stdin-filename", name, "-")
    command = Command(
        argv=("sh", "-c", 'exec "$@" <"$0"', str(path), *ruff),
        purpose="ruff does not take the code",
        timeout_s=60.0,
        working_dir=CHECKOUT,
    )
    status, output = process.run_unchecked(command)
    assert status == 0, output


@pytest.mark.parametrize("arguments", RUFF, ids=["check", "format"])
def test_the_code_that_a_reader_copies_passes_ruff(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    ((file, code),) = read_blocks((CHECKOUT / "CONTRIBUTING.md").read_text())
    assert file, "the page says in which file the code goes"
    (tmp_path / "code").write_text(code)
    check_with_ruff(arguments, file, tmp_path / "code")


# -- the page about tests ---------------------------------------------------------------------

TESTS_PAGE = CHECKOUT / "docs/tests.md"
SHOWN = re.compile(r"^```(?:python|sh|c)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"^(?:#|//) (\w+\.(?:py|sh|c))$", re.MULTILINE)


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """A folder with the tests that the page shows, by the names that it gives them."""
    for text in SHOWN.findall(TESTS_PAGE.read_text()):
        (name,) = FILE_NAME.findall(text)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_tests_that_the_page_shows_are_collected(shown: Path) -> None:
    command = Command(
        argv=(
            *(sys.executable, "-m", "pytest", str(shown), "--rootdir", str(shown)),
            *("-c", os.devnull, "-p", PLUGIN, "-p", "no:cacheprovider", "--collect-only", "-q"),
            *("--strict-markers", "--module", "none", "--module-path", "none"),
        ),
        purpose="the examples are not collected",
        timeout_s=60.0,
        environment=(
            ("PYTHONPATH", str(CHECKOUT / "toolchain")),
            ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ),
    )
    found = [line for line in process.run(command).splitlines() if "::" in line]
    assert found == [
        "read.c::read",
        "read.sh::read",
        "test_edu.py::test_unbind_with_a_request_posted",
        "test_edu.py::test_a_caller_is_killed",
        "test_edu.py::test_the_device_goes_while_it_is_served",
        "test_leaks.py::test_no_read_loses_a_page",
        "test_leaks.py::test_a_missing_file_is_refused",
        "test_load.py::test_a_load_is_logged",
        "test_read.py::test_a_read_returns_zeros",
    ]


def test_the_programs_that_the_page_shows_do_what_it_says(shown: Path) -> None:
    argv = ("gcc", "-Wall", "-Wextra", "-Werror", "-o", str(shown / "read"), str(shown / "read.c"))
    process.run(Command(argv=argv, purpose="read.c", timeout_s=60.0))
    for program in (("sh", str(shown / "read.sh")), (str(shown / "read"),)):
        for device, good in (("/dev/zero", True), ("/dev/null", False)):
            command = Command(
                argv=program,
                purpose="a program of the page",
                timeout_s=60.0,
                environment=(("TWINMOD_DEVICE", device),),
            )
            failed, skipped = programs.judge(*process.run_unchecked(command))
            assert (not failed, skipped) == (good, ""), program


@pytest.mark.parametrize("arguments", RUFF, ids=["check", "format"])
def test_the_tests_in_python_that_the_page_shows_pass_ruff(
    arguments: tuple[str, ...], shown: Path
) -> None:
    for path in shown.glob("*.py"):
        check_with_ruff(arguments, f"tests/matrix/{path.name}", path)


def test_the_page_names_every_option_fixture_marker_variable_and_part() -> None:
    text = TESTS_PAGE.read_text()
    folder = CHECKOUT / "toolchain/twinmod/guest/testing"
    plugin = (folder / "plugin.py").read_text()
    wanted = {
        *re.findall(r'addoption\("([-\w]+)"', plugin),
        *re.findall(r"@pytest.fixture.*\ndef (\w+)", plugin),
        *re.findall(r"TWINMOD_\w+", (folder / "programs.py").read_text()),
        *("rule", "fail_nth"),
        *({path.stem for path in folder.glob("[a-z]*.py")} - {"plugin", "names", "tap"}),
    }
    assert len(wanted) > 30
    assert [name for name in sorted(wanted) if f"`{name}" not in text] == []


# -- the man page -----------------------------------------------------------------------------

ERRNOS = re.compile(r"\bE[A-Z0-9]+\b")

#: What the contract has and the page does not, with the reason.
UNLISTED = {
    "EBADF": "of every file: it is not open for that",
    "EEXIST": "of every file that is there; and of loading a module twice",
    "ENOENT": "of every file that is not there",
    "ENOTDIR": "of every file that is not a directory",
    "ENXIO": "the contract says that it never comes",
    "EWOULDBLOCK": "of unloading a module",
    "EXDEV": "of every two files on different file systems",
}


def read_errnos(text: str) -> set[str]:
    return {name for name in ERRNOS.findall(text) if hasattr(errno, name)}


def test_the_man_page_has_the_errnos_of_the_contract() -> None:
    page = (CHECKOUT / "templates/dkms/mdriver.4.j2").read_text()
    _, _, listed = page.partition(".SH ERRORS")
    heads = read_errnos("\n".join(re.findall(r"^\.TP\n\.B (\w+)$", listed, re.MULTILINE)))
    contract = read_errnos((CHECKOUT / "DEVICE.md").read_text())
    assert len(heads) > 5
    assert heads | UNLISTED.keys() == contract
    assert not heads & UNLISTED.keys()

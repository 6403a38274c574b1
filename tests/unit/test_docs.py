# SPDX-License-Identifier: GPL-2.0-only
"""What the documents point to is there."""

import errno
import re
import sys
import textwrap
from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.process import Command

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


@pytest.mark.parametrize("arguments", [("check",), ("format", "--diff")], ids=["check", "format"])
def test_the_code_that_a_reader_copies_passes_ruff(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    ((file, code),) = read_blocks((CHECKOUT / "CONTRIBUTING.md").read_text())
    assert file, "the page says in which file the code goes"
    (tmp_path / "code").write_text(code)
    # As if it stood where the page says: what is allowed there, and what is our own to import.
    ruff = (sys.executable, "-m", "ruff", *arguments, "--no-cache", "--stdin-filename", file, "-")
    command = Command(
        argv=("sh", "-c", 'exec "$@" <"$0"', str(tmp_path / "code"), *ruff),
        purpose="ruff does not take the code",
        timeout_s=60.0,
        working_dir=CHECKOUT,
    )
    status, output = process.run_unchecked(command)
    assert status == 0, output


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

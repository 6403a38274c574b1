# SPDX-License-Identifier: GPL-2.0-only
"""What the documents point to is there."""

import re
from pathlib import Path

import pytest

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

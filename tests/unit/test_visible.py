# SPDX-License-Identifier: GPL-2.0-only
"""What cannot be shown becomes its escape, and every report can hold the rest."""

import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.guest import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", r"a\x00b"),
        ("\x01", r"\x01"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x7f", r"\x7f"),
        ("\x9b2J", r"\x9b2J"),
        ("x\r", r"x\x0d"),
        ("\ufffe", r"\ufffe"),
        ("\uffff", r"\uffff"),
        ("\udcff", r"\udcff"),
        ("\ud800", r"\ud800"),
        ("a\u202eb", r"a\u202eb"),
        ("\u2028", r"\u2028"),
    ],
)
def test_what_cannot_be_shown_becomes_its_escape(text: str, shown: str) -> None:
    assert visible.make_visible(text) == shown


@pytest.mark.parametrize(
    "text", ["", "two\nlines\tand a tab", "caf\xe9 \N{SNOWMAN} \N{PILE OF POO}", r"\x1b", "<&>'\""]
)
def test_all_else_stays_as_it_is(text: str) -> None:
    assert visible.make_visible(text) == text


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_said_is_read_back_from_xml_and_stays_visible(text: str) -> None:
    shown = visible.make_visible(text)
    element = ET.Element("message", {"text": shown})
    element.text = shown
    back = ET.fromstring(ET.tostring(element, encoding="utf-8"))  # noqa: S314 - it is ours
    assert (back.get("text"), back.text or "") == (shown, shown)
    assert visible.make_visible(shown) == shown


SHOW = """\
import click
from rich.console import Console
from twinmod.base import progress
progress.accept_all_text()
text = "half \\udcff, \\ud800, snow \\u2603"
click.echo(text)
Console(highlight=False, soft_wrap=True).print(text)
click.echo(text, err=True)
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "iso-8859-1", "iso-8859-1:strict"])
def test_a_terminal_of_any_encoding_is_shown_all_text(encoding: str, tmp_path: Path) -> None:
    command = Command(
        argv=(sys.executable, "-c", SHOW),
        purpose="the script",
        timeout_s=30.0,
        environment=(("PYTHONIOENCODING", encoding), ("LC_ALL", os.environ.get("LC_ALL", "C"))),
        working_dir=tmp_path,
    )
    status, output = process.run_unchecked(command)
    assert status == 0, output
    assert output.count("half ") == 3

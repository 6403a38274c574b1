# SPDX-License-Identifier: GPL-2.0-only
"""What the repository promises of itself: twins are twins, and every source has its licence."""

import os
import re
import shutil
from pathlib import Path

from twinmod.base import files

CHECKOUT = Path(__file__).resolve().parents[2]

#: Not ours to license, or made by tools.
SKIPPED = (*files.LEFT, "out", ".git", ".nox", ".venv*", "node_modules")

#: What a person writes in a language that has comments.
SOURCES = {
    ".py",
    ".pyi",
    ".c",
    ".h",
    ".rs",
    ".S",
    ".toml",
    ".j2",
    ".sh",
    ".yml",
    ".yaml",
    ".cfg",
}

NAMED_SOURCES = {"CMakeLists.txt", "Makefile", "Kbuild"}

SPDX = re.compile(r"SPDX-License-Identifier: (\S[^*\n]*?)\s*(?:\*/)?$", re.MULTILINE)


def find_sources() -> list[Path]:
    found: list[Path] = []
    for folder, folders, names in os.walk(CHECKOUT):
        skipped = shutil.ignore_patterns(*SKIPPED)(folder, folders)
        folders[:] = [name for name in folders if name not in skipped]
        found += [
            Path(folder, name)
            for name in names
            if Path(name).suffix in SOURCES or name in NAMED_SOURCES
        ]
    return found


def strip_comments(source: str) -> str:
    """Return Rust without its comments and string literals."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"', "", source, flags=re.DOTALL)


def test_every_source_names_its_licence_in_its_first_lines() -> None:
    sources = find_sources()
    assert len(sources) > 30
    bare = []
    for path in sources:
        head = "\n".join(path.read_text().splitlines()[:3])
        found = SPDX.search(head)
        if found is None or not found.group(1).startswith("GPL-2.0-only"):
            bare.append(str(path.relative_to(CHECKOUT)))
    assert bare == []


def test_both_testers_have_one_interface() -> None:
    c = CHECKOUT / "c_tester/python/mdriver_tester_c/_native.pyi"
    rust = CHECKOUT / "rust_tester/python/mdriver_tester_rust/_native.pyi"
    assert c.read_text() == rust.read_text()


def test_unsafe_code_is_in_one_file_of_the_rust_module() -> None:
    folder = CHECKOUT / "rust_module"
    with_unsafe = {
        path.name
        for path in folder.glob("**/*.rs")
        if re.search(r"\bunsafe\b", strip_comments(path.read_text()))
    }
    assert with_unsafe == {"chardev.rs"}


def test_the_rust_drivers_own_file_denies_unsafe_code() -> None:
    code = strip_comments((CHECKOUT / "rust_module/mdriver_rust.rs").read_text())
    assert re.search(r"#!\[(?:deny|forbid)\([^)]*\bunsafe_code\b", code)
    # The one exception is the file that has all of it.
    (exempt,) = re.findall(r"#!?\[(?:allow|expect)\(unsafe_code\)\]\s*(.*)", code)
    assert exempt == "mod chardev;"

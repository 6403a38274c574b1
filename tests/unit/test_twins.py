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


# -- the twins' own files ---------------------------------------------------------------------

#: By language: the driver's own file, and what matches a comment, what may stand between it and the
#: function that it is of, and the function's name.
TWINS = {
    "c": (
        "c_module/mdriver_c.c",
        re.compile(
            r"(?:/\*(?P<comment>(?:(?!\*/).)*)\*/\n)?"
            r"^(?!return)\w[^\n(;={]*?\bmdriver_(?P<name>\w+)\([^;{]*\)\n\{",
            re.MULTILINE | re.DOTALL,
        ),
    ),
    "rust": (
        "rust_module/mdriver_rust.rs",
        re.compile(
            r"(?P<comment>(?:^ *///[^\n]*\n)*)(?:^ *#\[[^\n]*\n)*^ *fn (?P<name>\w+)",
            re.MULTILINE,
        ),
    ),
}

#: Functions of one twin alone, with the reason.
ALONE = {
    ("c", "span"): "in Rust it is Span::new of chardev.rs",
    ("c", "of"): "in Rust chardev.rs finds the device of a file",
    ("c", "llseek"): "in Rust it is chardev.rs's, which asks for the size",
    ("c", "free_pages"): "in Rust the pages free themselves",
    ("c", "alloc_pages"): "in Rust it is Mdriver::new",
    ("c", "exit"): "in Rust the registration ends itself",
    ("rust", "new"): "in C it is mdriver_alloc_pages",
    ("rust", "size"): "in C it is in the struct, and lseek reads it there",
}


def read_functions(language: str) -> list[tuple[str, str]]:
    """Return (name, comment) of a twin's functions, in their order."""
    file, function = TWINS[language]
    text = (CHECKOUT / file).read_text()
    return [
        (match["name"], " ".join(re.sub(r"///|[*@`]", " ", match["comment"] or "").split()))
        for match in function.finditer(text)
    ]


def test_the_twins_have_the_same_functions_with_the_same_comments_in_the_same_order() -> None:
    found = {language: read_functions(language) for language in TWINS}
    alone = {(language, name) for language in TWINS for name, _ in found[language]} & ALONE.keys()
    assert alone == ALONE.keys()
    c, rust = (
        [(name, comment) for name, comment in found[language] if (language, name) not in ALONE]
        for language in TWINS
    )
    assert len(c) > 15
    assert c == rust


def test_the_twins_name_the_same_rules_above_functions() -> None:
    """Those of single operations stand in the table, which is chardev.rs's in Rust."""
    c, rust = (
        {comment for _, comment in read_functions(language) if re.match(r"R\d", comment)}
        for language in TWINS
    )
    assert c == rust

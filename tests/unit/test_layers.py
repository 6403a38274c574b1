# SPDX-License-Identifier: GPL-2.0-only
"""The package's layers: imports point down, and the VM's program needs nothing but Python."""

import ast
import sys
from pathlib import Path

import pytest

import twinmod
from twinmod import process
from twinmod.specs import Command

PACKAGE_DIR = Path(twinmod.__file__).parent

#: The rule, stated once: a module imports from rows below its own and from no other.
LAYERS = (
    ("cli", "agent"),
    ("release_run", "verify_run"),
    ("bench_run", "dkms_run", "zoo_run"),
    ("flow",),
    ("differential",),
    ("debugger", "packages", "page", "project", "recording", "wheels"),
    ("chroot", "kernel", "kbuild", "guest", "proving", "userland"),
    ("tables",),
    (
        "built",
        "compress",
        "costs",
        "decode",
        "gate",
        "manual",
        "owntree",
        "registries",
        "sbom",
        "signing",
        "verify",
        "zoo",
    ),
    ("bugs", "goals", "proof"),
    (
        "bench",
        "config",
        "options",
        "results",
        "report",
        "resources",
        "sandbox",
        "environment",
        "initramfs",
        "lanes",
        "release",
        "repository",
    ),
    ("explain", "injection", "measure", "versions", "wording"),
    (
        "archives",
        "btf",
        "differing",
        "elf",
        "faults",
        "plot",
        "process",
        "cache",
        "network",
        "terminal",
    ),
    ("specs",),
    ("commands", "errors"),
    ("visible",),
)

RANKS = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def read_imports(name: str) -> tuple[set[str], set[str]]:
    """Return (modules of ours, top-level names of others) that a module imports, anywhere."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE_DIR / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import, which this test cannot place"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in found:
            top, *rest = full.split(".")
            if top != "twinmod":
                others.add(top)
            elif rest and rest[0] in RANKS:
                ours.add(rest[0])
    return ours, others


def read_closure(name: str) -> set[str]:
    """Return a module and all of ours that it needs, however far down."""
    needed: set[str] = set()
    pending = {name}
    while pending:
        needed |= pending
        pending = {found for part in pending for found in read_imports(part)[0]} - needed
    return needed


def test_every_module_of_the_package_has_a_layer() -> None:
    modules = {path.stem for path in PACKAGE_DIR.glob("*.py")} - {"__init__"}
    assert modules == set(RANKS)


@pytest.mark.parametrize("name", sorted(RANKS))
def test_imports_point_down_and_never_to_a_sibling(name: str) -> None:
    wrong = {found for found in read_imports(name)[0] if RANKS[found] <= RANKS[name]}
    assert not wrong


def test_the_package_itself_imports_nothing() -> None:
    body = ast.parse((PACKAGE_DIR / "__init__.py").read_text())
    assert not [n for n in ast.walk(body) if isinstance(n, ast.Import | ast.ImportFrom)]


def test_only_one_module_can_start_processes() -> None:
    doors = {"subprocess", "multiprocessing", "pty"}
    assert {name for name in RANKS if read_imports(name)[1] & doors} == {"process"}


#: The program inside the VM, and what nox itself imports before anything is installed.
BARE = ("agent", "environment")


@pytest.mark.parametrize("name", BARE)
def test_what_runs_where_nothing_is_installed_names_only_the_standard_library(name: str) -> None:
    named = {other for part in read_closure(name) for other in read_imports(part)[1]}
    assert named <= sys.stdlib_module_names


@pytest.mark.parametrize("name", BARE)
def test_what_runs_where_nothing_is_installed_imports_there(name: str) -> None:
    # -I -S: neither site-packages nor the caller's settings, as little as the VM has.
    script = f"import sys; sys.path.insert(0, {str(PACKAGE_DIR.parent)!r}); import twinmod.{name}"
    argv = (sys.executable, "-I", "-S", "-c", script)
    assert process.run(Command(argv=argv, purpose=name, timeout_s=30)) == ""

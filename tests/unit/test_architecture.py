# SPDX-License-Identifier: GPL-2.0-only
"""The packages of twinmod: what CONTRIBUTING.md says of them, and what runs with Python alone.

`lint-imports` holds the imports between them to the contracts in pyproject.toml.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinmod.base import process, templates
from twinmod.base.process import Command

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE_DIR = templates.PACKAGE_DIR


def read_layers() -> list[str]:
    """Return the rows of the contract, the one that imports all others first."""
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    return list(layers)


def test_the_guide_shows_the_packages_in_the_order_of_the_contract() -> None:
    shown = re.findall(
        r"^ *\| `(\w+)`[^|]*\|", (CHECKOUT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    assert shown == [name for row in reversed(read_layers()) for name in row.split(" | ")]


def test_every_package_says_what_it_holds() -> None:
    for folder in (path for path in PACKAGE_DIR.iterdir() if (path / "__init__.py").exists()):
        body = ast.parse((folder / "__init__.py").read_text()).body
        assert [type(node) for node in body] == [ast.Expr], folder.name


# -- processes --------------------------------------------------------------------------------


def iterate_modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield (path in the package, its code) of every module."""
    for path in sorted(PACKAGE_DIR.rglob("*.py")):
        name = str(path.relative_to(PACKAGE_DIR))
        if not name.startswith(f"{templates.DATA}/"):
            yield name, ast.parse(path.read_text())


def read_imports(code: ast.Module) -> set[str]:
    """Return the full names that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import, which this test cannot place"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_one_module_of_the_host_and_one_of_a_vm_can_start_processes() -> None:
    doors = {"subprocess", "multiprocessing", "pty"}
    found = {
        name
        for name, code in iterate_modules()
        if {full.split(".")[0] for full in read_imports(code)} & doors
    }
    assert found == {"base/process.py", "guest/door.py"}


# -- one of each ------------------------------------------------------------------------------

#: What a VM runs, and the one file of it that does a thing: its system call, its file.
GUEST = ("toolchain/twinmod/guest", "tests/matrix", "zoo")
DOERS = {
    "loads modules": ((313, "insmod"), "toolchain/twinmod/guest/modules.py"),
    "unloads modules": ((176, "rmmod"), "toolchain/twinmod/guest/modules.py"),
    "reads the kernel's log": (("/dev/kmsg",), "toolchain/twinmod/guest/log.py"),
    "forks": (("fork",), "toolchain/twinmod/guest/child.py"),
}


def read_constants(path: Path) -> set[object]:
    """Return the constants of a module, and the names of what it calls of ``os``."""
    found: set[object] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant):
            found.add(node.value)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
            found.add(node.attr)
    return found


@pytest.mark.parametrize("what", DOERS)
def test_one_file_of_a_vm_does_it(what: str) -> None:
    signs, doer = DOERS[what]
    paths = (path for folder in GUEST for path in (CHECKOUT / folder).rglob("*.py"))
    found = {str(path.relative_to(CHECKOUT)) for path in paths if read_constants(path) & {*signs}}
    assert found == {doer}


# -- where nothing is installed ---------------------------------------------------------------


def test_what_runs_in_a_vm_names_only_itself_and_the_standard_library() -> None:
    names = {
        full
        for name, code in iterate_modules()
        if name.startswith("guest/")
        for full in read_imports(code)
        if not full.startswith("twinmod.guest.")
    }
    others = {full.split(".")[0] for full in names if not full.startswith("twinmod.guest")}
    # The tests of a VM run by pytest, and what they are written with knows it.
    assert others - sys.stdlib_module_names <= {"pytest"}


@pytest.mark.parametrize("name", ["guest.agent", "base.environment"])
def test_what_runs_where_nothing_is_installed_imports_there(name: str) -> None:
    # -I -S: neither site-packages nor the caller's settings, as little as the VM and nox have.
    script = f"import sys; sys.path.insert(0, {str(PACKAGE_DIR.parent)!r}); import twinmod.{name}"
    argv = (sys.executable, "-I", "-S", "-c", script)
    assert process.run(Command(argv=argv, purpose=name, timeout_s=30)) == ""


def test_the_command_imports_where_no_pytest_is() -> None:
    # A session that only runs the command installs no pytest: None makes its import fail.
    script = 'import sys; sys.modules["pytest"] = None; import twinmod.ui.cli'
    argv = (sys.executable, "-c", script)
    assert process.run(Command(argv=argv, purpose="the command", timeout_s=30)) == ""

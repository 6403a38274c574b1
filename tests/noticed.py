# SPDX-License-Identifier: GPL-2.0-only
"""Break each function of the orchestration, one at a time, and see whether a unit test notices.

``python tests/noticed.py [-k PART] [-j 2]``: some minutes for a part of it, up to an hour for all.
It works on copies of the checkout, and prints a line for each break: the function, how it was
broken, and the test that noticed. It ends with 1 when none did.
"""

import argparse
import ast
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue

import click

CHECKOUT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(CHECKOUT / "toolchain"))

from twinmod.base import process  # noqa: E402
from twinmod.base.process import Command  # noqa: E402
from twinmod.errors import TwinmodError  # noqa: E402

PACKAGE = Path("toolchain/twinmod")

#: What starts VMs, and what is done in them; folders stand for all modules in them.
BROKEN = (
    "vm",
    "matrix/run.py",
    "differential/run.py",
    "bench/run.py",
    "bench/counter.py",
    "shell",
    "experiments/zoo_run.py",
    "guest/agent.py",
    "guest/child.py",
    "guest/stream.py",
    "workspace.py",
)

#: How many tests that noticed something in a module are tried before all others.
HINTS = 4

#: A time for each broken file, which no other one has.
SECONDS = count(1)

#: Each call of these is left out too.
CALLS = ("run_cells", "run_vm", "serve")

#: What a run of the tests may take. A break that makes one hang is noticed.
LIMIT_S = 120.0

#: Parts of a checkout that the unit tests read.
COPIED = (
    "*.md",
    "VERSION",
    "LICENSE",
    "pyproject.toml",
    "noxfile.py",
    ".github",
    "docs",
    "zoo",
    "c_module",
    "rust_module",
    "c_tester",
    "rust_tester",
    "templates",
    "tests",
    "toolchain",
)

#: By package, the tests that notice most; "": of all others.
FIRST = {"vm": "test_vm_runs.py", "guest": "test_agent_runs.py", "": "test_verb_runs.py"}

#: By the type that a function says it returns, a value with nothing in it.
EMPTY = {
    "str": '""',
    "bytes": 'b""',
    "int": "0",
    "float": "0.0",
    "bool": "False",
    "tuple": "()",
    "list": "[]",
    "dict": "{}",
    "Mapping": "{}",
    "set": "set()",
    "Iterator": "iter(())",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One function, or one call, that is broken."""

    # Of the module, relative to the checkout.
    path: Path
    # "Vm.ask", or "boot" and a line for a call.
    name: str
    how: str
    # Lines of the file that are replaced, from 1 on, and what replaces them.
    first: int
    last: int
    text: str

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.path.relative_to(PACKAGE)}: {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """A break, and what noticed it."""

    broken: Break
    # The name of a test, or how the run ended otherwise; "" when all tests passed.
    by: str


def list_paths() -> tuple[Path, ...]:
    """Return the modules that are broken, relative to the checkout."""
    found: list[Path] = []
    for name in BROKEN:
        path = CHECKOUT / PACKAGE / name
        found += sorted(path.glob("*.py")) if path.is_dir() else [path]
    return tuple(path.relative_to(CHECKOUT) for path in found)


def iterate_functions(
    body: list[ast.stmt], prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield (name, function) of the functions of a module and the methods of its classes."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            protocol = any(isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases)
            if not protocol:
                yield from iterate_functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"{prefix}{node.name}", node


def find_code(function: ast.FunctionDef) -> list[ast.stmt]:
    """Return what a function consists of beside its docstring."""
    first, *rest = function.body
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return rest if is_text else function.body


def plan_empty(function: ast.FunctionDef) -> str:
    """Return the statement that returns nothing, of the kind that a function says it returns."""
    if any(
        ast.unparse(d) in ("contextmanager", "contextlib.contextmanager")
        for d in function.decorator_list
    ):
        return "yield None"
    kind = ast.unparse(function.returns) if function.returns is not None else "None"
    value = EMPTY.get(kind.partition("[")[0], "None")
    return f"yield from {value}" if _is_generator(function) else f"return {value}"


def _is_generator(function: ast.FunctionDef) -> bool:
    inner = [node for node in ast.walk(function) if isinstance(node, ast.Yield | ast.YieldFrom)]
    return bool(inner) and "Iterator" in ast.unparse(function.returns or ast.Constant(None))


def plan_breaks(path: Path, text: str) -> Iterator[Break]:
    """Yield each way to break a module.

    Args:
        path: Of the module.
        text: Its code.
    """
    code = ast.parse(text)
    for name, function in iterate_functions(code.body):
        statements = find_code(function)
        if not statements:
            continue
        first, last = statements[0].lineno, statements[-1].end_lineno or 0
        indent = " " * (function.col_offset + 4)
        empty = plan_empty(function)
        shown = " ".join(ast.unparse(node) for node in statements)
        for how in ('raise RuntimeError("broken")', empty):
            # What returns nothing already is not broken by it.
            if shown != how:
                yield Break(
                    path=path, name=name, how=how, first=first, last=last, text=f"{indent}{how}\n"
                )
        yield from plan_dropped(path, text, name, function)


def plan_dropped(path: Path, text: str, name: str, function: ast.FunctionDef) -> Iterator[Break]:
    """Yield a break for each call of CALLS in a function: None takes its place."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        if called not in CALLS:
            continue
        last = node.end_lineno or node.lineno
        lines = text.splitlines(keepends=True)
        before = lines[node.lineno - 1].encode()[: node.col_offset].decode()
        after = lines[last - 1].encode()[node.end_col_offset :].decode()
        yield Break(
            path=path,
            name=f"{name}, line {node.lineno}",
            how=f"{called}() left out",
            first=node.lineno,
            last=last,
            text=f"{before}None{after}",
        )


def apply_break(text: str, broken: Break) -> str:
    """Return a module's code with one thing in it broken."""
    lines = text.splitlines(keepends=True)
    return "".join((*lines[: broken.first - 1], broken.text, *lines[broken.last :]))


# -- tests ------------------------------------------------------------------------------------


def list_tests(path: Path) -> tuple[tuple[str, ...], ...]:
    """Return the files of tests that can notice a break in a module, the likeliest first.

    They are those that name it, in what they import or in the script of another process, and those
    of FIRST.
    """
    package, module = path.parent.name, path.stem
    names = [rf"twinmod\.{package}\.{module}\b", rf"twinmod\.{package} import .*\b{module}\b"]
    if path.parent == PACKAGE:
        names = [rf"twinmod import .*\b{module}\b", rf"twinmod\.{module}\b"]
    pattern = re.compile("|".join(names))
    tests = sorted((CHECKOUT / "tests/unit").glob("test_*.py"))
    naming = [test.name for test in tests if pattern.search(test.read_text())]
    likely = next(name for folder, name in FIRST.items() if folder in (package, ""))
    others = [name for name in (*naming, *FIRST.values()) if name != likely]
    return (likely,), tuple(dict.fromkeys(others))


def run_tests(folder: Path, tests: tuple[str, ...]) -> str:
    """Run files of tests in a copy of the checkout; return which one failed first, or ""."""
    command = Command(
        argv=(
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "--tb=no",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            *(f"tests/unit/{name}" for name in tests),
        ),
        purpose="the tests",
        timeout_s=LIMIT_S,
        working_dir=folder,
        environment=(
            ("PYTHONPATH", str(folder / "toolchain")),
            ("TMPDIR", str(folder / "tmp")),
        ),
    )
    try:
        status, output = process.run_unchecked(command)
    except TwinmodError:
        return f"no end within {LIMIT_S:.0f} s"
    found = re.search(r"^(?:FAILED|ERROR) (?:tests/unit/)?(\S+)", output, re.MULTILINE)
    return found[1] if found else "" if status == 0 else f"pytest ended with {status}"


def make_copy(folder: Path) -> None:
    """Copy what the unit tests read of the checkout."""
    folder.mkdir()
    for pattern in COPIED:
        for path in CHECKOUT.glob(pattern):
            target = folder / path.name
            if path.is_dir():
                shutil.copytree(
                    path,
                    target,
                    symlinks=True,
                    ignore=shutil.ignore_patterns("target", "*.so", "build", "out"),
                )
            else:
                shutil.copy2(path, target)
    (folder / "tmp").mkdir()


def try_break(folder: Path, broken: Break, hints: list[str]) -> Noticed:
    """Break something in a copy of the checkout, run the tests, and mend it.

    Args:
        folder: The copy.
        broken: What is broken.
        hints: Tests that noticed other breaks of that module; the last ones are tried first.
    """
    path = folder / broken.path
    text = path.read_text()
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(apply_break(text, broken))
    # Python knows compiled code by the second and the size of its source.
    os.utime(path, (broken.first, next(SECONDS)))
    try:
        by = ""
        for tests in (tuple(hints[-HINTS:]), *list_tests(broken.path)):
            by = by or (run_tests(folder, tests) if tests else "")
        if "::" in by and by not in hints:
            hints.append(by)
        return Noticed(broken=broken, by=by)
    finally:
        path.write_text(text)
        os.utime(path, ns=times)


def run(breaks: tuple[Break, ...], copies: int) -> int:
    """Try all breaks in some copies of the checkout, and print the table.

    Returns:
        How many nobody noticed.
    """
    with tempfile.TemporaryDirectory(prefix="twinmod-noticed-") as name:
        folders: SimpleQueue[Path] = SimpleQueue()
        for number in range(copies):
            folder = Path(name) / str(number)
            make_copy(folder)
            folders.put(folder)

        if failed := run_tests(Path(name) / "0", tuple(FIRST.values())):
            sys.exit(f"a test fails although nothing is broken: {failed}")
        hints: dict[Path, list[str]] = {broken.path: [] for broken in breaks}

        def act(broken: Break) -> Noticed:
            folder = folders.get()
            try:
                return try_break(folder, broken, hints[broken.path])
            finally:
                folders.put(folder)

        missed = 0
        with ThreadPoolExecutor(copies) as pool:
            for noticed in pool.map(act, breaks):
                missed += not noticed.by
                broken = noticed.broken
                click.echo(f"{broken.label:<60} {broken.how:<28} {noticed.by or 'NOT NOTICED'}")
    click.echo(f"{len(breaks) - missed} of {len(breaks)} breaks were noticed")
    return missed


def main() -> int:
    """Read the command line and try the breaks; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-k", dest="part", default="", help="Only what has this in its label.")
    parser.add_argument("-j", dest="copies", type=int, default=2, help="How many at once.")
    parser.add_argument("--list", action="store_true", help="Show what would be broken.")
    options = parser.parse_args()
    breaks = tuple(
        broken
        for path in list_paths()
        for broken in plan_breaks(path, (CHECKOUT / path).read_text())
        if re.search(options.part, broken.label)
    )
    if options.list:
        for broken in breaks:
            click.echo(f"{broken.label:<60} {broken.how}")
        return 0
    return 1 if run(breaks, options.copies) else 0


if __name__ == "__main__":
    sys.exit(main())

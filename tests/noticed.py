# SPDX-License-Identifier: GPL-2.0-only
"""Break each function of the orchestration, one at a time, and see whether a unit test notices.

``python tests/noticed.py [-k PART] [-j 2]`` prints a line for each break: the function, how it was
broken, and the test that noticed. It ends with 1 when none did. No file of the checkout is changed.

The host's functions are broken in the memory of a process that has collected all tests, and then
forks for each break. What runs in a VM is broken in copies of the checkout: its tests start it as a
process of its own.
"""

import argparse
import ast
import importlib
import inspect
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from types import CodeType
from typing import Any

import click
import pytest

CHECKOUT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(CHECKOUT / "toolchain"))

from twinmod.base import process  # noqa: E402
from twinmod.base.process import Command  # noqa: E402
from twinmod.errors import TwinmodError  # noqa: E402

PACKAGE = Path("toolchain/twinmod")

#: What starts VMs, and what is done in them; folders stand for all modules in them.
BROKEN = (
    "vm",
    "cells/history.py",
    "cells/parts.py",
    "matrix/run.py",
    "differential/run.py",
    "bench/run.py",
    "bench/counter.py",
    "shell",
    "experiments/engine.py",
    "experiments/zoo_run.py",
    "guest/agent.py",
    "guest/child.py",
    "guest/door.py",
    "guest/fwcfg.py",
    "guest/leaks.py",
    "guest/log.py",
    "guest/measure.py",
    "guest/modules.py",
    "guest/plugin.py",
    "guest/stream.py",
    "guest/waking.py",
    "workspace.py",
)

#: How many tests that noticed something in a module are tried before all others.
HINTS = 4

#: A time for each broken file, which no other one has.
SECONDS = count(1)

#: Each call of these is left out too.
CALLS = ("run_cells", "run_clones", "run_booted", "run_vm", "serve")

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
FIRST = {
    "vm": "test_vm_runs.py",
    "guest": "test_agent_runs.py",
    "experiments": "test_experiment_runs.py",
    "": "test_verb_runs.py",
}

#: What the table says of a break that could not be made.
UNTRIED = "not tried: "

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

    def render(self) -> str:
        """Return its line of the table."""
        return f"{self.broken.label:<60} {self.broken.how:<28} {self.by or 'NOT NOTICED'}"


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

    They are those that name it, in their own name, in what they import or in the script of another
    process, and those of FIRST.
    """
    package, module = path.parent.name, path.stem
    names = [rf"twinmod\.{package}\.{module}\b", rf"twinmod\.{package} import .*\b{module}\b"]
    if path.parent == PACKAGE:
        names = [rf"twinmod import .*\b{module}\b", rf"twinmod\.{module}\b"]
    pattern = re.compile("|".join(names))
    tests = sorted((CHECKOUT / "tests/unit").glob("test_*.py"))
    own = f"test_{module}"
    naming = [t.name for t in tests if t.stem.startswith(own) or pattern.search(t.read_text())]
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


def run_copies(breaks: tuple[Break, ...], copies: int) -> Iterator[Noticed]:
    """Try breaks in some copies of the checkout at once."""
    with tempfile.TemporaryDirectory(prefix="twinmod-noticed-") as name:
        folders: SimpleQueue[Path] = SimpleQueue()
        for number in range(copies):
            folder = Path(name) / str(number)
            make_copy(folder)
            folders.put(folder)
        hints: dict[Path, list[str]] = {broken.path: [] for broken in breaks}

        def act(broken: Break) -> Noticed:
            folder = folders.get()
            try:
                return try_break(folder, broken, hints[broken.path])
            finally:
                folders.put(folder)

        with ThreadPoolExecutor(copies) as pool:
            yield from pool.map(act, breaks)


# -- in memory --------------------------------------------------------------------------------


def break_function(broken: Break) -> None:
    """Break a function of this process.

    Raises:
        LookupError: It is not there.
    """
    name = ".".join(("twinmod", *broken.path.relative_to(PACKAGE).with_suffix("").parts))
    module = importlib.import_module(name)
    function = broken.name.partition(",")[0]
    found: Any = module
    for part in function.split("."):
        found = inspect.getattr_static(found, part)
    found = found.fget if isinstance(found, property) else found
    found = found.func if isinstance(found, cached_property) else found
    text = apply_break((CHECKOUT / broken.path).read_text(), broken)
    inspect.unwrap(getattr(found, "__func__", found)).__code__ = next(
        code
        for code in iterate_codes(compile(text, str(broken.path), "exec"))
        if code.co_qualname == function
    )


def iterate_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all that are in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from iterate_codes(constant)


class Server:
    """A plugin of pytest that tries each break in a process of its own, once tests are collected.

    Args:
        breaks: Of functions of the host.
        copies: How many processes at once.
        tell: Called with each line of the table.
    """

    def __init__(
        self, breaks: tuple[Break, ...], copies: int, tell: Callable[[str], object]
    ) -> None:
        self.breaks = breaks
        self.copies = copies
        self.tell = tell
        self.failed = ""
        self.found: list[Noticed] = []
        self.hints: dict[Path, list[str]] = {broken.path: [] for broken in breaks}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of a test that failed."""
        if report.failed:
            self.failed = self.failed or report.nodeid.removeprefix("tests/unit/")

    def run_items(self, items: list[pytest.Item]) -> str:
        """Run tests until one fails; return its name, or ""."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return self.failed
        return ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try all breaks; every test passes before that, in a fork too."""
        first = [item for item in session.items if item.path.name in FIRST.values()]
        if failed := self.run_items(first) or self.run_unbroken(session, first):
            self.tell(f"a test fails although nothing is broken: {failed}")
            return True
        running: dict[int, tuple[Break, int, float]] = {}
        left = iter(self.breaks)
        while True:
            while len(running) < self.copies and (broken := next(left, None)) is not None:
                pid, reader = self.fork_broken(session, broken)
                running[pid] = broken, reader, time.monotonic() + LIMIT_S
            if not running:
                return True
            pid = min(running, key=lambda pid: running[pid][2])
            ended, _, _ = select.select([one[1] for one in running.values()], [], [], LIMIT_S)
            for pid in [pid for pid, one in running.items() if one[1] in ended]:
                self.finish(pid, *running.pop(pid)[:2])
            for pid in [pid for pid, one in running.items() if one[2] < time.monotonic()]:
                os.kill(pid, signal.SIGINT)

    def run_unbroken(self, session: pytest.Session, items: list[pytest.Item]) -> str:
        """Run tests in a fork in which nothing is broken; return which one failed first, or ""."""
        pid, reader = self.fork(session, items, lambda: None)
        by = os.read(reader, 4096).decode()
        os.close(reader)
        os.waitpid(pid, 0)
        return by

    def fork_broken(self, session: pytest.Session, broken: Break) -> tuple[int, int]:
        """Try a break in a fork; return its process, and where it says what noticed it."""
        hints = self.hints[broken.path][-HINTS:]
        files = [name for names in list_tests(broken.path) for name in names]
        order = {name: number for number, name in enumerate(files)}
        items = [item for item in session.items if item.path.name in order]
        items.sort(
            key=lambda item: (
                item.nodeid.removeprefix("tests/unit/") not in hints,
                order[item.path.name],
            )
        )
        return self.fork(session, items, lambda: break_function(broken))

    def fork(
        self, session: pytest.Session, items: list[pytest.Item], prepare: Callable[[], None]
    ) -> tuple[int, int]:
        """Run tests in a fork; return its process, and where it says what failed.

        Args:
            session: What was collected.
            items: The tests.
            prepare: Called before them.
        """
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            return pid, reader
        by = f"no end within {LIMIT_S:.0f} s"
        with suppress(KeyboardInterrupt):
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                own = move_folders(session)
                prepare()
                by = self.run_items(items)
                shutil.rmtree(own, ignore_errors=True)
            except Exception as error:
                by = f"{UNTRIED}{error!r}"
        os.write(writer, by.encode())
        os._exit(0)

    def finish(self, pid: int, broken: Break, reader: int) -> None:
        """Take note of what came of a break."""
        by = os.read(reader, 4096).decode()
        os.close(reader)
        os.waitpid(pid, 0)
        if "::" in by and by not in self.hints[broken.path]:
            self.hints[broken.path].append(by)
        self.found.append(Noticed(broken=broken, by=by))
        self.tell(self.found[-1].render())


def move_folders(session: pytest.Session) -> Path:
    """Let this fork have temporary folders of its own, with what all tests have in common.

    Returns:
        The folder that they are in.
    """
    folders: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    common = folders.getbasetemp()
    own = Path(tempfile.mkdtemp(prefix="fork-", dir=common))
    folders._basetemp = own
    shutil.copytree(common / "toy", own / "toy", symlinks=True)
    return own


def run_forks(breaks: tuple[Break, ...], copies: int) -> tuple[Noticed, ...]:
    """Try breaks of the host's functions in forks of one process."""
    files = dict.fromkeys(
        f"tests/unit/{name}"
        for broken in breaks
        for names in list_tests(broken.path)
        for name in names
    )
    options = ("--tb=no", "-p", "no:cacheprovider", "-p", "no:randomly")
    os.chdir(CHECKOUT)
    # The table leaves out what pytest says of the tests of each fork.
    with os.fdopen(os.dup(1), "w", buffering=1) as table, Path(os.devnull).open("w") as nowhere:
        server = Server(breaks, copies, lambda line: table.write(f"{line}\n"))
        os.dup2(nowhere.fileno(), 1)
        pytest.main([*options, *files], plugins=[server])
        os.dup2(table.fileno(), 1)
    return tuple(server.found)


def run(breaks: tuple[Break, ...], copies: int) -> int:
    """Try all breaks and print the table; return how many nobody noticed."""
    inside = tuple(one for one in breaks if one.path.relative_to(PACKAGE).parts[0] == "guest")
    outside = tuple(one for one in breaks if one not in inside)
    found = list(run_forks(outside, copies) if outside else ())
    for noticed in run_copies(inside, copies) if inside else ():
        found.append(noticed)
        click.echo(noticed.render())
    total = sum(bool(noticed.by) and not noticed.by.startswith(UNTRIED) for noticed in found)
    click.echo(f"{total} of {len(breaks)} breaks were noticed")
    return len(breaks) - total


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

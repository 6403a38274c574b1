# SPDX-License-Identifier: GPL-2.0-only
"""What is named plan, parse, render or compare reads no file, no environment and no clock.

A function is looked at with all of twinmod's that it calls by name; a method of another object is
not followed, but the names of pathlib's that read or write count wherever they stand. What it only
hands on to be called later, a function or a lambda, is an act that it plans.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from twinmod.base import templates

PACKAGE_DIR = templates.PACKAGE_DIR

PURE = re.compile(r"_?(plan|parse|render|compare)_")

#: Methods of a path that look at, or change, what is there.
PATHS = {
    *("exists", "is_file", "is_dir", "is_symlink", "iterdir", "glob", "rglob", "stat", "lstat"),
    *("read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rmdir"),
    *("resolve", "absolute", "expanduser", "readlink", "symlink_to", "rename", "touch", "chmod"),
}

#: What reads or changes the world, by module; None: all of it.
WORLD: dict[str, set[str] | None] = {
    "os": {"environ", "getenv", "getcwd", "cpu_count", "geteuid", "getuid", "getpid", "scandir"},
    "time": {"time", "monotonic", "sleep", "time_ns", "monotonic_ns"},
    "shutil": None,
    "socket": None,
    "subprocess": None,
    "tempfile": None,
    "platform": None,
    "importlib": None,
    "sys": {"argv", "stdin", "path"},
}

#: What a pure function may use all the same.
ALLOWED = {
    # how the reader types a command, and how many jobs make starts: no part of a result
    "twinmod.base.commands.render_prefix",
    "twinmod.base.sandbox.find_jobs",
    # files that are part of twinmod
    "twinmod.base.templates.render_template",
    "twinmod.base.templates.read_version",
    # is_dir of an entry of an archive
    "twinmod.base.archives.parse_zip",
}


def iterate_now(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield what a function does when it is called, without what it defines for later."""
    left: list[ast.AST] = list(function.body)
    while left:
        node = left.pop()
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            yield node
            left += ast.iter_child_nodes(node)


class Functions:
    """All functions of twinmod, with what each of them uses."""

    def __init__(self) -> None:
        self.reads: dict[str, list[str]] = {}
        self.calls: dict[str, list[str]] = {}
        self.verbs: set[str] = set()
        for path in sorted(PACKAGE_DIR.rglob("*.py")):
            relative = path.relative_to(PACKAGE_DIR)
            if relative.parts[0] != templates.DATA:
                name = ".".join(("twinmod", *relative.with_suffix("").parts))
                self._add_module(name.removesuffix(".__init__"), ast.parse(path.read_text()))

    def _add_module(self, module: str, code: ast.Module) -> None:
        imports: dict[str, str] = {}
        for node in ast.walk(code):
            if isinstance(node, ast.ImportFrom):
                imports |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            elif isinstance(node, ast.Import):
                imports |= {a.asname or a.name: a.name for a in node.names}
        for node in code.body:
            functions = node.body if isinstance(node, ast.ClassDef) else [node]
            for function in functions:
                if isinstance(function, ast.FunctionDef):
                    owner = f"{module}.{node.name}" if isinstance(node, ast.ClassDef) else module
                    self._add_function(f"{owner}.{function.name}", module, function, imports)

    def _add_function(
        self, name: str, module: str, function: ast.FunctionDef, imports: dict[str, str]
    ) -> None:
        reads, calls = self.reads.setdefault(name, []), self.calls.setdefault(name, [])
        for node in iterate_now(function):
            if isinstance(node, ast.Attribute):
                base = imports.get(node.value.id) if isinstance(node.value, ast.Name) else None
                if base is None and node.attr in PATHS:
                    reads.append(f".{node.attr}")
                calls += [f"{base}.{node.attr}"] if base in WORLD else []
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                calls.append(imports.get(node.func.id, f"{module}.{node.func.id}"))
            elif isinstance(node, ast.Call):
                base, _, called = ast.unparse(node.func).rpartition(".")
                calls += [f"{imports[base]}.{called}"] if base in imports else []
        reads += [full for full in calls if self._is_world(full)]
        if function.decorator_list and any(
            "command" in ast.unparse(d) for d in function.decorator_list
        ):
            self.verbs.add(name)

    @staticmethod
    def _is_world(full: str) -> bool:
        module, _, name = full.rpartition(".")
        known = WORLD.get(module, set())
        return known is None or name in known

    def find_read(self, name: str, seen: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Return the way from a function to what it reads, () when it reads nothing."""
        if name in seen or name in ALLOWED or name not in self.calls:
            return ()
        if self.reads[name]:
            return (name, self.reads[name][0])
        ways = (self.find_read(called, seen | {name}) for called in self.calls[name])
        return next(((name, *way) for way in ways if way), ())

    def iterate_pure(self) -> Iterator[str]:
        """Yield those whose names say that they are pure; a verb's name is what a person types."""
        for name in self.calls:
            if PURE.match(name.rpartition(".")[2]) and name not in self.verbs:
                yield name


@pytest.fixture(scope="module")
def functions() -> Functions:
    return Functions()


def test_what_is_named_as_pure_reads_nothing(functions: Functions) -> None:
    assert {
        way[0]: way[1:] for n in functions.iterate_pure() if (way := functions.find_read(n))
    } == {}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("kernels.packages.prepare_apt", "os.environ"),
        ("builds.build.list_modules", ".rglob"),
        # in what it calls, in another module
        ("workspace.Workspace.read_version", ".exists"),
    ],
)
def test_a_function_that_reads_is_known(functions: Functions, name: str, read: str) -> None:
    assert functions.find_read(f"twinmod.{name}")[-1] == read


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_what_is_allowed_is_there_and_reads(
    functions: Functions, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.ALLOWED", ALLOWED - {name})
    assert functions.find_read(name)

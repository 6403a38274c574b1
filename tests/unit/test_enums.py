# SPDX-License-Identifier: GPL-2.0-only
"""A value of one of our StrEnums is compared with a member, never with a string written out.

Such a member is a string, so that mypy takes ``outcome == "pased"`` for a comparison that may hold.
What has a name that any annotation gives one of our enums counts as a value of it, wherever that
name is: the same word then has one meaning.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

SOURCES = (
    *sorted((CHECKOUT / "toolchain/twinmod").rglob("*.py")),
    *sorted((CHECKOUT / "tests/layouts").glob("*.py")),
)

#: What a set or a sequence of an enum's members is annotated with; a mapping's values are not it.
CONTAINERS = {"tuple", "list", "set", "frozenset", "Iterable", "Sequence", "Collection", "Iterator"}

#: Names that say nothing of what they are a name of: files, cells and packages have one too.
GENERAL = {"name"}


def name_source(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def find_enums(trees: Iterable[ast.Module]) -> set[str]:
    """Return the names of the classes that are a StrEnum."""
    return {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith("StrEnum") for base in node.bases)
    }


def is_enum(annotation: ast.expr | None, enums: set[str]) -> bool:
    """Tell whether an annotation is an enum, one or None, or several of one."""
    match annotation:
        case ast.Name(id=name):
            return name in enums
        case ast.Attribute(attr=name):
            return name in enums
        case ast.BinOp(left=left, right=right):
            return is_enum(left, enums) or is_enum(right, enums)
        case ast.Subscript(value=ast.Name(id=name), slice=part) if name in CONTAINERS:
            parts = part.elts if isinstance(part, ast.Tuple) else [part]
            return any(is_enum(part, enums) for part in parts)
    return False


def find_names(trees: Iterable[ast.Module], enums: set[str]) -> set[str]:
    """Return the names of variables, fields, parameters and functions that have an enum's type."""
    found = set()
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name)):
                    annotation: ast.expr | None = node.annotation
                case ast.arg(arg=name):
                    annotation = node.annotation
                case ast.FunctionDef(name=name):
                    annotation = node.returns
                case ast.Assign(
                    targets=[ast.Name(id=name)],
                    value=ast.Attribute(value=ast.Name() | ast.Attribute() as owner),
                ):
                    # name = Outcome.PASSED
                    annotation = owner if ast.unparse(owner)[0].isupper() else None
                case _:
                    continue
            if is_enum(annotation, enums):
                found.add(name)
    return found - GENERAL


def is_written_out(node: ast.AST) -> bool:
    """Tell whether an expression is a string, or a display of some."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(map(is_written_out, node.elts))
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != ""


def name_value(node: ast.expr) -> str:
    """Return the name under which a value is known, "" for none."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=called):
            return name_value(called)
    return ""


def find_comparisons(tree: ast.Module, names: set[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, what is compared) of comparisons with a string that is written out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            for number, operator in enumerate(node.ops):
                pair = sides[number : number + 2]
                known = any(name_value(side) in names for side in pair)
                operators = ast.Eq | ast.NotEq | ast.In | ast.NotIn
                if known and isinstance(operator, operators) and any(map(is_written_out, pair)):
                    yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Match) and name_value(node.subject) in names:
            for case in node.cases:
                for pattern in ast.walk(case.pattern):
                    if isinstance(pattern, ast.MatchValue) and is_written_out(pattern.value):
                        yield pattern.lineno, ast.unparse(pattern)


TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
ENUMS = find_enums(TREES.values())
NAMES = find_names(TREES.values(), ENUMS)


def test_the_enums_and_what_has_their_type_are_found() -> None:
    assert {"Outcome", "Job", "AcceleratorName", "Origin", "Language", "Mode", "Stop"} <= ENUMS
    assert {"outcome", "origin", "language", "mode", "stopped_by", "space"} <= NAMES


@pytest.mark.parametrize("path", SOURCES, ids=name_source)
def test_no_value_of_an_enum_is_compared_with_a_string_that_is_written_out(path: Path) -> None:
    found = list(find_comparisons(TREES[path], NAMES))
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        'end == "pased"',
        'result.end != "pased"',
        '"pased" == result.end',
        'end in ("passed", "pased")',
        'result.end not in ("passed", Outcome.FAILED)',
        'end in {"pased"}',
        '"pased" in ends',
        'find_end(result) == "pased"',
        'other == "pased"',
        "match result.end:\n    case 'pased':\n        pass",
        "match end:\n    case Outcome.FAILED | 'pased':\n        pass",
        'x == end == "pased"',
    ],
)
def test_a_misspelt_value_is_seen(text: str) -> None:
    assert list(find_comparisons(ast.parse(text), read_example()))


@pytest.mark.parametrize(
    "text",
    [
        "end == Outcome.PASSED",
        "end in (Outcome.PASSED, Outcome.FAILED)",
        'end == ""',
        'name == "pased"',
        'table[end] == "pased"',
        'end < "pased"',
        'f(end, "pased")',
    ],
)
def test_what_is_no_such_comparison_is_let_be(text: str) -> None:
    assert not list(find_comparisons(ast.parse(text), read_example()))


def read_example() -> set[str]:
    """Return the names that have an enum's type in a file with each way to say so."""
    tree = ast.parse(
        "class Outcome(StrEnum): ...\n"
        "class Result:\n    end: Outcome | None\n    name: str\n"
        "def find_end(result) -> protocol.Outcome: ...\n"
        "def f(ends: Iterable[Outcome], table: dict[str, Outcome]): ...\n"
        "other = Outcome.PASSED\n"
    )
    return find_names([tree], find_enums([tree]))

# SPDX-License-Identifier: GPL-2.0-only
"""Sequences of steps, and the scripts that they are written to and read from."""

import ast
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from twinmod.errors import ConfigError

#: (name, arguments), as the project's package has them.
Step = tuple[str, Mapping[str, Any]]

#: What a model says that steps and the end must answer; None without a model.
Expected = list[tuple[Any, ...]] | None

SUFFIX = ".replay"

#: The first line of a script.
HEADER = "# twinmod replay: for `test --replay FILE`"

#: The call that a script starts with: which device, and which tester.
DEVICE = "device"


class Definition(Protocol):
    """What a project's package has in its module ``strategy``."""

    # Sizes of the device, in bytes, that a run takes in turn; 0 loads modules without a size.
    SIZES: tuple[int, ...]
    # The names of all steps; a run that left one out has failed.
    NAMES: tuple[str, ...]

    def make_strategy(self, size: int) -> Any:
        """Return hypothesis's strategy for lists of steps."""

    def expect(self, size: int, steps: list[Step]) -> tuple[list[Step], Expected]:
        """Return the steps that can be carried out, and what they and the end must answer.

        A package without a model has no such function.
        """


@dataclass(slots=True, kw_only=True)
class WithoutModel:
    """A project's package without `expect`: its first module says what the others must answer."""

    SIZES: tuple[int, ...]
    NAMES: tuple[str, ...]
    make_strategy: Callable[[int], Any]

    def expect(self, size: int, steps: list[Step]) -> tuple[list[Step], Expected]:
        """Return all steps, of which nobody knows what they must answer."""
        del size
        return list(steps), None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Steps for devices of one size, by one tester."""

    size: int
    tester: str
    steps: tuple[Step, ...]


def load_definition(matrix_dir: Path, package: str) -> Definition:
    """Import the project's package; one without a model is given one that expects nothing.

    Raises:
        ConfigError: It is not there, or does not import.
    """
    sys.path.insert(0, str(matrix_dir))
    try:
        found = importlib.import_module(f"{package}.strategy")
    except ImportError as error:
        raise ConfigError(
            f"differential = {package!r} does not import: {error}",
            facts=(("folder", str(matrix_dir / package)),),
            hint="correct `differential` of the driver, or the package",
        ) from error
    finally:
        sys.path.remove(str(matrix_dir))
    if hasattr(found, "expect"):
        return cast("Definition", found)
    return WithoutModel(SIZES=found.SIZES, NAMES=found.NAMES, make_strategy=found.make_strategy)


def render_step(step: Step) -> str:
    """Return a step as a call: ``pread(file=0, size=9, offset=4090)``."""
    name, arguments = step
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def render_script(sequence: Sequence, comments: Iterable[str] = ()) -> str:
    """Return a sequence as a script that reproduces it: one call a line."""
    lines = [HEADER, *(f"# {line}" for line in comments)]
    return "\n".join(lines) + "\n" + render_calls(sequence)


def plan_device(sequence: Sequence) -> Step:
    """Return the call that a sequence's script starts with."""
    # A tester's name may be a member of an enumeration, whose repr() is no text.
    tester = {"tester": str(sequence.tester)} if sequence.tester else {}
    return DEVICE, {"size": sequence.size, **tester}


def render_calls(sequence: Sequence) -> str:
    """Return what a script consists of beside comments."""
    return "".join(f"{render_step(step)}\n" for step in (plan_device(sequence), *sequence.steps))


def parse_script(text: str, definition: Definition, testers: tuple[str, ...]) -> Sequence:
    """Return the sequence that a script has.

    Raises:
        ConfigError: A line is no call of a step; the message names the line.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the script is not one call a line: {error}") from error
    (size, tester), calls = _parse_device(body, definition, testers), body[1:]
    if not calls:
        raise ConfigError("the script has no step")
    steps = []
    for node in calls:
        name, arguments = _parse_call(node)
        if name not in definition.NAMES:
            raise ConfigError(f"line {node.lineno}: there is no step {name!r}")
        steps.append((name, arguments))
    fitted = _fit_steps(definition, size, steps, [node.lineno for node in calls])
    return Sequence(size=size, tester=tester, steps=tuple(fitted))


def parse_file(text: str, name: str, definition: Definition, testers: tuple[str, ...]) -> Sequence:
    """Return the sequence of a script, as parse_script; an error has the script's name as a fact.

    Raises:
        ConfigError: It is no script.
    """
    try:
        return parse_script(text, definition, testers)
    except ConfigError as error:
        facts = (*error.facts, ("script", name))
        raise ConfigError(error.message, facts=facts, hint=error.hint) from error


def _parse_device(
    body: list[ast.stmt], definition: Definition, testers: tuple[str, ...]
) -> tuple[int, str]:
    name, arguments = _parse_call(body[0]) if body else ("", {})
    size, tester = arguments.get("size"), arguments.get("tester", "")
    possible = type(size) is int and (size > 0 or size in definition.SIZES)
    if name != DEVICE or not possible or tester not in testers:
        example = f"{DEVICE}(size={definition.SIZES[0]})"
        if any(testers):
            example = f"{DEVICE}(size=4096, tester='c'), with a tester of: {', '.join(testers)}"
        raise ConfigError("the script does not begin with its device", hint=example)
    return int(str(size)), str(tester)


def _parse_call(node: ast.stmt) -> Step:
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
        try:
            arguments = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
            # The agent is told in JSON.
            json.dumps(arguments)
            return call.func.id, arguments
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
    raise ConfigError(f"line {node.lineno}: not a call such as size(file=0)")


#: What a model raises for a step that it cannot take.
UNFIT = (TypeError, AttributeError, LookupError, ValueError, ArithmeticError)


def _fit_steps(
    definition: Definition, size: int, steps: list[Step], lines: list[int]
) -> list[Step]:
    """Return a script's steps as they are carried out.

    Raises:
        ConfigError: One lacks an argument, has one too many, or one that means nothing there; the
            message names its line.
    """
    with suppress(*UNFIT):
        kept, _ = definition.expect(size, steps)
        if len(kept) == len(steps):
            return kept
    for count, line in enumerate(lines, 1):
        shown = f"line {line}: {render_step(steps[count - 1])}"
        try:
            kept, _ = definition.expect(size, steps[:count])
        except UNFIT as error:
            raise ConfigError(f"{shown}: {str(error).replace('Model._', '')}") from error
        if len(kept) < count:
            raise ConfigError(f"{shown} means nothing here")
    raise AssertionError("the last of these is all steps, which were refused")

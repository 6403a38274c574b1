# SPDX-License-Identifier: GPL-2.0-only
"""Advice names the command that a person has, and the command that it names is understood."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from twinmod.base import commands
from twinmod.html import run
from twinmod.ui import cli, manual
from twinmod.ui.command import Context

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE_DIR = CHECKOUT / "toolchain/twinmod"
SOURCES = (
    *sorted(PACKAGE_DIR.rglob("*.py")),
    CHECKOUT / "tests/layouts/layouts.py",
)


def name_source(path: Path) -> str:
    """Return a file's path in the package, or its name."""
    inside = PACKAGE_DIR in path.parents
    return str(path.relative_to(PACKAGE_DIR)) if inside else path.name


#: The one place that may write them out, and the scripts that only a session runs.
WRITES_OUT = {"commands.py", "manual.py"}
SESSIONS_ALONE = ("nox -s layouts --",)

VERBS = {verb.name.split()[0] for verb in manual.list_verbs(cli.cli)} | {"manual"}

#: A command in a text: of nox, of the command itself, or the end of one of nox.
NAMED = re.compile(rf"\bnox -s\b|\btwinmod (?:{'|'.join(sorted(VERBS))})\b(?!:)|(?<!\w)-- --")


# -- the two languages ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "session", "alone"),
    [
        (("setup",), "nox -s setup", "twinmod setup"),
        (("build", "--show"), "nox -s build -- --show", "twinmod build --show"),
        (("cache", "prune"), "nox -s cache -- prune", "twinmod cache prune"),
        (
            ("test", "-k", "R4 and not R14"),
            "nox -s test -- -k 'R4 and not R14'",
            "twinmod test -k 'R4 and not R14'",
        ),
        (("new", "FOLDER"), "twinmod new FOLDER", "twinmod new FOLDER"),
    ],
)
def test_a_command_is_a_session_where_nox_runs_and_a_verb_elsewhere(
    words: tuple[str, ...], session: str, alone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commands.render(*words) == alone
    monkeypatch.setenv(commands.NOX_SESSION, "test")
    assert commands.render(*words) == session


@pytest.mark.parametrize(
    ("arguments", "session", "alone"),
    [
        (("test",), "nox -s test --", "twinmod test"),
        ((), "twinmod", "twinmod"),
        (("cache", "list"), "nox -s cache -- list", "twinmod cache list"),
    ],
)
def test_usage_begins_as_the_person_began(
    arguments: tuple[str, ...], session: str, alone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: click.Context = Context(cli.cli, info_name="twinmod")
    for name in arguments:
        assert isinstance(context.command, click.Group)
        command = context.command.commands[name]
        assert command.context_class is Context
        context = Context(command, info_name=name, parent=context)
    assert context.command_path == alone
    monkeypatch.setenv(commands.NOX_SESSION, "test")
    assert context.command_path == session


# -- every hint -------------------------------------------------------------------------------


def iterate_calls() -> Iterator[tuple[str, ast.Call]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "commands.render":
                yield f"{name_source(path)}:{node.lineno}", node


def read_words(node: ast.expr, verb: bool) -> tuple[str, ...]:
    """Return what an argument of a call may be; the name of a file stands for what is not known."""
    if isinstance(node, ast.Constant):
        return (str(node.value),)
    return tuple(run.REPORTS) if verb else ("FILE",)


def read_arguments(call: ast.Call) -> Iterator[str]:
    """Yield the arguments after the verb; what is made of a list has a test where it is made."""
    for argument in call.args[1:]:
        if not isinstance(argument, ast.Starred):
            yield read_words(argument, verb=False)[0]


CALLS = [
    pytest.param(
        (verb, *read_arguments(call)),
        id=f"{file} {verb}",
    )
    for file, call in iterate_calls()
    for verb in read_words(call.args[0], verb=True)
]


def read_sessions() -> dict[str, tuple[str, ...]]:
    """Return, for each session of noxfile.py that runs a verb, the command's first arguments."""
    found = {}
    for function in ast.parse((CHECKOUT / "noxfile.py").read_text()).body:
        if not isinstance(function, ast.FunctionDef) or not function.decorator_list:
            continue
        decorator = function.decorator_list[0]
        names = [
            k.value.value
            for k in getattr(decorator, "keywords", ())
            if isinstance(k.value, ast.Constant)
        ]
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("twinmod", "session.run"):
                words = tuple(str(a.value) for a in node.args if isinstance(a, ast.Constant))
                words = words[1:] if words[:1] == ("twinmod",) else words
                found[str(names[0]) if names else function.name] = words
    return found


def parse(arguments: tuple[str, ...]) -> None:
    """Let click understand a command line, and do nothing of it."""
    command: click.Command = cli.cli
    name, rest = "twinmod", arguments
    while isinstance(command, click.Group):
        name, *others = rest
        command, rest = command.commands[name], tuple(others)
    # Files that it opened are closed with the context.
    command.make_context(name, list(rest)).close()


@pytest.fixture
def _placeholders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be where the words that stand for a file and a folder are one."""
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "KEY", "CERTIFICATE"):
        (tmp_path / name).write_text("")
    (tmp_path / "DIR").mkdir()


@pytest.mark.usefixtures("_placeholders")
@pytest.mark.parametrize("words", CALLS)
def test_the_command_understands_what_a_hint_advises(words: tuple[str, ...]) -> None:
    program, *arguments = shlex.split(commands.render(*words))
    assert program == "twinmod"
    parse(tuple(arguments))


@pytest.mark.usefixtures("_placeholders")
@pytest.mark.parametrize("words", CALLS)
def test_nox_has_the_session_that_a_hint_advises(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(commands.NOX_SESSION, "test")
    program, *arguments = shlex.split(commands.render(*words))
    if words[0] in commands.WITHOUT_SESSION:
        parse(tuple(arguments))
        return
    assert (program, arguments[0]) == ("nox", "-s")
    assert len(arguments) == 2 or arguments[2] == "--"
    parse((*read_sessions()[arguments[1]], *arguments[3:]))


def test_there_are_hints() -> None:
    files = {str(call.id).split(":")[0] for call in CALLS}
    assert {"base/process.py", "builds/signing.py", "kernels/find.py", "html/run.py"} <= files


def test_a_verb_has_a_session_unless_it_is_named_as_one_without() -> None:
    sessions = read_sessions()
    assert {words[0] for words in sessions.values()} >= VERBS - set(commands.WITHOUT_SESSION)
    assert not sessions.keys() & set(commands.WITHOUT_SESSION)


#: Sessions for twinmod's own code, which CONTRIBUTING.md shows.
OWN_SESSIONS = {"lint", "unit", "lowest"}


def read_shown_sessions(page: str) -> set[str]:
    """Return the sessions that README.md shows: alone in a line, or in its table's first column."""
    shown = set(re.findall(r"^nox -s ([\w-]+)$", page, re.MULTILINE))
    for cell in re.findall(r"^\| (`nox -s .*?) \| ", page, re.MULTILINE):
        shown |= set(re.findall(r"`(?:nox -s )?([a-z][\w-]*)[^`]*`", cell))
    return shown


def read_all_sessions() -> set[str]:
    code = ast.parse((CHECKOUT / "noxfile.py").read_text())
    return {
        next(
            (k.value.value for k in getattr(decorator, "keywords", ()) if k.arg == "name"),
            function.name,
        )
        for function in code.body
        if isinstance(function, ast.FunctionDef)
        for decorator in function.decorator_list
    }


def test_the_readme_shows_every_session_and_every_verb_without_one() -> None:
    page, sessions = (CHECKOUT / "README.md").read_text(), read_all_sessions()
    assert sessions >= read_sessions().keys() | OWN_SESSIONS
    assert sessions - OWN_SESSIONS - read_shown_sessions(page) == set()
    assert set(commands.WITHOUT_SESSION) - set(re.findall(r"twinmod ([a-z]+)", page)) == set()


# -- and none elsewhere -----------------------------------------------------------------------


def iterate_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the strings of a file, and of docstrings those of the verbs alone."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and not getattr(node, "decorator_list", ())
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield getattr(node, "lineno", 0), str(node.value)


@pytest.mark.parametrize("path", SOURCES, ids=name_source)
def test_no_message_writes_a_command_out(path: Path) -> None:
    texts = [] if path.name in WRITES_OUT else iterate_texts(path)
    found = [
        f"{path.name}:{line}: {text}"
        for line, text in texts
        if NAMED.search(text) and text not in SESSIONS_ALONE
    ]
    assert not found


def test_no_template_names_a_session() -> None:
    # A new project has a noxfile.py of its own, and its README names it.
    own = {
        CHECKOUT / "templates/new" / name
        for name in ("noxfile.py.j2", "README.md.j2", "gitignore.j2")
    }
    for path in {*(CHECKOUT / "templates").rglob("*.j2")} - own:
        assert not re.search(r"\bnox\b", path.read_text()), path

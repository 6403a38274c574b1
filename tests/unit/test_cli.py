# SPDX-License-Identifier: GPL-2.0-only
"""The command refuses what it does not understand: one clear error, nothing on stdout."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.process import Command

#: Some seventy commands in one process take a few seconds, and many times that on a busy machine.
LIMIT_S = 240.0

CHECKOUT = Path(__file__).resolve().parents[2]

#: (where, arguments); "none" is a folder of no project, "broken" one whose project is not valid,
#: "foreign" one with a driver of somebody who has never heard of twinmod.
CALLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no increments": ("project", ("counter", "-n", "0")),
    "fewer than no threads": ("project", ("counter", "-w", "-1")),
    "no number": ("project", ("counter", "-n", "many")),
    "an unknown tester": ("project", ("test", "--tester", "go")),
    "an unknown language": ("project", ("build", "zig")),
    "no method of counting": ("project", ("counter", "--method", "hope")),
    "no minutes": ("project", ("soak", "--minutes", "0")),
    "minutes that are no number": ("project", ("soak", "--minutes", "nan")),
    "a share that is no number": ("project", ("bench", "--share", "nan")),
    "minutes without an end": ("project", ("soak", "--minutes", "inf")),
    "a comparison with what is no text": ("project", ("bench", "--compare", sys.executable)),
    "a seed below zero": ("project", ("soak", "--seed", "-1")),
    "a script that is not there": ("project", ("test", "--replay", "nowhere.replay")),
    "a script and a selection": ("project", ("test", "--replay", "pyproject.toml", "-k", "R1")),
    "a script and a rule": ("project", ("test", "--replay", "pyproject.toml", "--rule", "R1")),
    "an unknown rule": ("none", ("test", "--rule", "R4", "--rule", "R99")),
    "a rule in small letters": ("none", ("test", "--rule", "r7")),
    "a rule like no other": ("none", ("test", "--kernel", "all", "--rule", "seek")),
    "tests of a project without a contract": ("project", ("test", "--kernel", "all")),
    "less memory than a VM needs": ("project", ("test", "--memory", "255")),
    "memory that is no number": ("project", ("test", "--memory", "much")),
    "an unknown verb": ("project", ("tset",)),
    "an unknown option": ("project", ("test", "--fast")),
    "an unknown verb of the cache": ("project", ("cache", "empty")),
    "a test of a broken project": ("broken", ("test",)),
    "a build of a broken project": ("broken", ("build", "--show")),
    "a doctor of a broken project": ("broken", ("doctor",)),
    "an unknown kernel where no project is": ("none", ("build", "--kernel", "nine")),
    **{
        f"{verb} of somebody else's driver": ("foreign", tuple(verb.split()))
        for verb in (
            "doctor",
            "setup",
            "build",
            "build --show",
            "test",
            "soak",
            "counter",
            "bench",
            "report",
            "shell",
            "gdb",
            "matrix",
            "zoo",
            "zoo --list",
            "lint-kernel",
            "release",
            "cache prune",
        )
    },
    "an unknown shell": ("none", ("completion", "cmd.exe")),
    "a shell that nobody types into": ("project", ("shell",)),
    "a shell to debug that nobody types into": ("project", ("shell", "--gdb")),
    "a new project in a folder that holds something": ("project", ("new", ".")),
    "a new project without a name": ("none", ("new",)),
}

#: What is noted where no project is.
SHIPPED = "no twinmod.toml and no [tool.twinmod] here or above"

#: Imports once, then forks for each call: the imports take longer than all the calls.
RUN = """\
import gc, json, os, sys
from twinmod.ui import cli
# A child that ends would go through all objects, and copy each page of theirs.
gc.freeze()
shown = {}
for name, (folder, arguments) in json.loads(sys.argv[1]).items():
    ends = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        for descriptor, (_, write_end) in enumerate(ends, 1):
            os.dup2(write_end, descriptor)
        os.closerange(3, 64)
        sys.argv = ["twinmod", *arguments]
        cli.main()
    texts = []
    for read_end, write_end in ends:
        os.close(write_end)
    for read_end, _ in ends:
        with os.fdopen(read_end) as stream:
            texts.append(stream.read())
    shown[name] = (os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *texts)
print(json.dumps(shown))
"""


@dataclass(frozen=True)
class Ended:
    """How a call of the command ended."""

    status: int
    stdout: str
    stderr: str


def run_calls(calls: dict[str, tuple[Path, tuple[str, ...]]], cache_dir: Path) -> dict[str, Ended]:
    told = json.dumps({name: (str(folder), args) for name, (folder, args) in calls.items()})
    command = Command(
        argv=(sys.executable, "-c", RUN, told),
        purpose="the calls",
        timeout_s=LIMIT_S,
        environment=(("TWINMOD_CACHE_DIR", str(cache_dir)), ("NO_COLOR", "1")),
    )
    with process.start(command, stderr=subprocess.PIPE) as child:
        output, errors = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 0, errors.decode()
    return {name: Ended(*values) for name, values in json.loads(output).items()}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    names = ("none", "project", "broken", "foreign")
    folders = {name: tmp_path_factory.mktemp(name) for name in names}
    none, project, broken = (folders[name] for name in names[:3])
    (project / "pyproject.toml").write_bytes((CHECKOUT / "pyproject.toml").read_bytes())
    (broken / "pyproject.toml").write_text("[tool.twinmod]\nkernel = 3\n")
    (folders["foreign"] / "hello.c").write_text("int main(void);\n")
    calls = {name: (folders[where], arguments) for name, (where, arguments) in CALLS.items()}
    calls["a missing source"] = (project, ("build",))
    calls["version"] = (none, ("--version",))
    calls["help"] = (none, ("counter", "--help"))
    calls["an empty cache"] = (none, ("cache", "list"))
    calls["completion"] = (none, ("completion", "fish"))
    for verb in ("cache list", "completion bash", "manual", "--version", "test --help"):
        calls[f"{verb} beside a driver"] = (folders["foreign"], tuple(verb.split()))
    calls["show before setup"] = (CHECKOUT, ("build", "--show"))
    calls["show without a project"] = (none, ("build", "--show"))
    cache_dir = none / "cache"
    found = run_calls(calls, cache_dir)
    assert not cache_dir.exists(), "a call that was refused made a cache"
    assert [path.name for path in project.iterdir()] == ["pyproject.toml"]
    assert not list(none.iterdir())
    assert [path.name for path in folders["foreign"].iterdir()] == ["hello.c"]
    return found


@pytest.mark.parametrize("name", [*CALLS, "a missing source"])
def test_what_is_not_understood_is_refused_with_one_error(
    name: str, ended: dict[str, Ended]
) -> None:
    call = ended[name]
    assert call.status == 2
    assert call.stdout == ""
    first = call.stderr.split("\n", 1)[1] if call.stderr.startswith(SHIPPED) else call.stderr
    assert first.startswith("error: ")
    assert call.stderr.count("error:") == 1
    assert "Traceback" not in call.stderr


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("no increments", "0"),
        ("fewer than no threads", "-1"),
        ("an unknown tester", "go"),
        ("an unknown language", "zig"),
        ("less memory than a VM needs", "255"),
        ("memory that is no number", "much"),
        ("an unknown verb", "tset"),
        ("an unknown option", "--fast"),
        ("a test of a broken project", "pyproject.toml"),
        ("a missing source", "the sources of module mdriver_c are missing"),
        ("an unknown shell", "cmd.exe"),
        ("a shell that nobody types into", "hint: in a terminal: twinmod shell"),
        ("an unknown kernel where no project is", "there are: trixie-backports"),
        ("a new project in a folder that holds something", "empty folder"),
        ("an unknown rule", "--rule R99: DEVICE.md has no such rule\n  nearest: R9 "),
        ("a rule in small letters", "nearest: R7 R17\n  hint:    twinmod test --rule R7\n"),
        ("a rule like no other", "rules: R1 R2 R3 "),
        ("tests of a project without a contract", "the contract cannot be read"),
    ],
)
def test_an_error_names_what_was_wrong(name: str, word: str, ended: dict[str, Ended]) -> None:
    assert word in ended[name].stderr


def test_what_needs_a_setup_says_so_with_the_code_of_its_own(ended: dict[str, Ended]) -> None:
    call = ended["show before setup"]
    assert (call.status, call.stdout) == (3, "")
    assert "hint: twinmod setup --kernel trixie-backports\n" in call.stderr


def test_a_folder_without_a_project_is_as_good_as_the_one_that_twinmod_ships_with(
    ended: dict[str, Ended],
) -> None:
    call, other = ended["show without a project"], ended["show before setup"]
    assert call.status == other.status
    assert call.stderr.startswith(SHIPPED)
    assert call.stderr.split("\n", 1)[1] == other.stderr


@pytest.mark.parametrize(
    "name",
    [
        "version",
        "help",
        "an empty cache",
        "completion",
        "cache list beside a driver",
        "completion bash beside a driver",
        "manual beside a driver",
        "--version beside a driver",
        "test --help beside a driver",
    ],
)
def test_what_asks_for_no_project_needs_none(name: str, ended: dict[str, Ended]) -> None:
    call = ended[name]
    assert (call.status, call.stderr) == (0, "")
    assert call.stdout

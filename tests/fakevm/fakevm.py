# SPDX-License-Identifier: GPL-2.0-only
"""Verbs and VMs with nothing faked but what they start: bwrap, and so QEMU and every compiler.

All that the tests of the orchestration know of production code's signatures is here: a project of
a few files, a cache with a chroot and a kernel that nobody made, and what a VM says.
"""

import json
import os
import select
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pytest

from twinmod.base import cache
from twinmod.base.progress import Progress
from twinmod.builds.product import Product
from twinmod.cells.model import Cell, CellResult, DifferentialCell
from twinmod.cells.selection import Selection
from twinmod.differential import run as differential_run
from twinmod.guest import protocol
from twinmod.guest.protocol import Count, Operation, Outcome, Segments, Timing, Turns
from twinmod.kernels import find, roots
from twinmod.matrix import run as matrix_run
from twinmod.project import config as project_config
from twinmod.project.config import Config
from twinmod.project.model import LANGUAGES, Language, VmSpec
from twinmod.ui import cli
from twinmod.vm import (
    accelerator,
    boot,
    initramfs,
    machine,
    recording,
    running,
    session,
    snapshot,
    strategy,
)
from twinmod.vm.machine import Accelerator
from twinmod.vm.session import Boots, Vm, VmEnd
from twinmod.workspace import Workspace

RELEASE = "7.3.4-toy"

#: An act of the player, and what it is given; see player.py.
Act = tuple[Any, ...]

#: How long a process that was killed may take to be gone.
END_TIMEOUT_S = 10.0

#: Takes (modinfo, comments, symbols); conftest has it.
MakeElf = Callable[[dict[str, str], tuple[str, ...], tuple[str, ...]], bytes]

MODULES = {Language.C: "toy_c", Language.RUST: "toy_rust"}

RULES = ("R1", "R2")

#: The tests of the matrix: each is named by its rule.
TESTS = {rule: (rule,) for rule in RULES}

#: What a run of the toy project takes for cells, in its order.
CELLS = tuple(
    Cell(module=name, label=language, tester=tester)
    for language, name in MODULES.items()
    for tester in ("c", "rust")
)

#: (stop, by) of each attempt of the toy's zoo.
ZOO = {
    "leak/c": ("rule", "R1"),
    "leak/rust": ("compile", "E0382"),
    "race/c": ("nowhere", ""),
    "race/rust": ("nowhere", ""),
    "misuse/c": ("crash", "lost"),
    "misuse/rust": ("compile", "E0382"),
}

#: Other layouts, which are modules too.
LAYOUTS = ("layout_one", "layout_two")

#: The entry whose attempts are programs.
PROGRAMS = "misuse"

REFUSAL = """\
error[E0382]: use of moved value: `page`
 --> zoo.rs:9:5
error: aborting due to 1 previous error
"""

#: The kernel that the player boots, as a twinmod.toml begins.
KERNEL = """\
kernel = "toy"
lock = "lock.txt"
mirror = "http://mirror.example/debian"
roots.toy.suite = "toy"
kernels.toy = { root = "toy", suite = "toy", flavour = "toy" }
vm = { boot-timeout-s = 60.0, test-timeout-s = 5.0, silence-timeout-s = 60.0 }
"""

CONFIGURATION = (
    "[tool.twinmod]\n"
    + KERNEL
    + """\

[tool.twinmod.drivers.toy]
contract = "DEVICE.md"
tests = "matrix"
differential = "adding"
mutants = "mutants.toml"
modules.c = { name = "toy_c", sources = "c_module" }
modules.rust = { name = "toy_rust", sources = "rust_module", in-tree = "samples/toy_rust" }
testers.c = { project = "c_tester", package = "toy_tester_c" }
testers.rust = { project = "rust_tester", package = "toy_tester_rust" }
"""
)

STRATEGY = """\
from hypothesis import strategies

NAMES = ("put", "take")
SIZES = (4096,)


def make_strategy(size):
    value = strategies.integers(0, 9)
    names = strategies.sampled_from(NAMES)
    step = strategies.tuples(names, strategies.fixed_dictionaries({"value": value}))
    return strategies.lists(step, min_size=1, max_size=4)


def expect(size, steps):
    answers = [(step["value"], 0 if name == "put" else 1) for name, step in steps]
    return list(steps), [*answers, (sum(step["value"] for _, step in steps),)]
"""

SCRIPT = """\
# twinmod replay: for `test --replay FILE`
device(size=4096, tester='c')
put(value=1)
take(value=2)
put(value=5)
"""


MUTANTS = """\
[unmutated]
R2 = "it is a toy"
[[fault]]
name = "wrong"
why = "it is wrong"
rules = ["R1"]
refused.rust = "E0382"
[[fault.c]]
text = "int toy;"
with = "int wrong;"
[[fault.rust]]
text = "struct Toy;"
with = "struct Wrong;"
"""


def render_entry(name: str) -> str:
    """Return an entry of the zoo."""
    lines = [
        'kind = "a toy"',
        'why = "Because."',
        'reference = "none"',
        'kernel = "stock"',
        f'space = "{"user" if name == PROGRAMS else "kernel"}"',
    ]
    for variant in ("c", "rust"):
        stop, by = ZOO[f"{name}/{variant}"]
        lines += [f"[{variant}]", f'stopped_by = "{stop}"', f'by = "{by}"']
        lines += ['because = "it is a toy"'] if stop == "nowhere" else []
    return "\n".join(lines)


PROJECT = {
    "pyproject.toml": CONFIGURATION,
    "VERSION": "0.1.0\n",
    "lock.txt": "",
    "DEVICE.md": "## R1 Open\n\n## R2 Close\n",
    "c_module/toy_c.c": "int toy;\n",
    "rust_module/toy_rust.rs": "struct Toy;\n",
    "c_tester/pyproject.toml": "",
    "rust_tester/pyproject.toml": "",
    "rust_tester/Cargo.toml": "",
    "rust_tester/Cargo.lock": "version = 4\n",
    "matrix/test_toy.py": "",
    "matrix/adding/__init__.py": "",
    "matrix/adding/strategy.py": STRATEGY,
    "matrix/adding/corpus/first.replay": SCRIPT,
    **{f"tests/layouts/{name}.c": "" for name in LAYOUTS},
    "mutants.toml": MUTANTS,
    "zoo/conftest.py": "",
    "zoo/support/zoo_toy.py": "",
    **{
        f"zoo/{name}/{file}": text
        for name in dict.fromkeys(attempt.partition("/")[0] for attempt in ZOO)
        for file, text in {
            f"test_{name}.py": "",
            f"zoo_{name}_c.c": "",
            f"zoo_{name}_rust.rs": "",
            "zoo.toml": render_entry(name),
        }.items()
    },
}


# -- what a VM says ---------------------------------------------------------------------------


def say(event: protocol.Event, at_s: float = 0.0) -> Act:
    """Return the act that says an event at a second of the VM's clock."""
    return ("raw", protocol.render_event(event, at_s))


def begin(cell: str, at_s: float = 0.0) -> Act:
    return say(protocol.CellBegan(cell=cell), at_s)


def end(outcome: str = "passed", *problems: str) -> Act:
    return say(protocol.CellEnded(outcome=Outcome(outcome), problems=problems))


def begin_test(name: str, *rules: str, at_s: float = 0.0) -> Act:
    return say(protocol.TestBegan(id=name, rules=rules), at_s)


def run_test(name: str, outcome: str = "passed", message: str = "") -> tuple[Act, ...]:
    """Return the acts of a test of the rule that it is named by, as in "R1"."""
    ended = protocol.TestEnded(
        id=name, rules=(name,), outcome=Outcome(outcome), duration_s=0.1, message=message
    )
    return begin_test(name, name), say(ended)


def run_cell(name: str = "@CELL@", outcome: str = "passed", **outcomes: str) -> tuple[Act, ...]:
    """Return the acts of a cell, whose tests pass unless another outcome is named by the rule."""
    tests = [act for rule in RULES for act in run_test(rule, outcomes.get(rule, "passed"))]
    return (begin(name), *tests, end(outcome))


BOOT: Act = ("boot",)
REST: Act = ("cells",)
END: Act = ("end",)
SILENCE: Act = ("silence",)
KILL: Act = ("kill",)


def count(outcome: str = "passed", actual: int = 6) -> tuple[Act, ...]:
    """Return the acts of a cell that counted up to 6."""
    values = Count(target=6, actual=actual, real_s=0.5, user_s=0.1, system_s=0.1)
    return (begin("@CELL@"), say(protocol.CountTaken(values=values)), end(outcome))


def measure(**options: Any) -> tuple[Act, ...]:
    """Return the acts of a cell whose calls are counted; see act_measure of player.py."""
    return (begin("@CELL@"), ("measure", "@CELL@", options), end())


def serve(**options: Any) -> tuple[Act, ...]:
    """Return the acts of the differential; see ``answer`` of player.py."""
    return (begin("differential"), ("serve", options), end())


def _edit(event: protocol.Event, **values: str) -> str:
    """Return an event's line with some of its values open."""
    line = json.loads(protocol.render_event(event, 0.0))
    line["values"].update({key: f"@{name}@" for key, name in values.items()})
    return json.dumps(line) + "\n"


def plan_lines(packages: Mapping[str, str]) -> dict[str, Any]:
    """Return what the player reads beside its scripts."""
    timing = Timing(operation=Operation.READ)
    segments = Segments(timing=timing, cell="", load=0, first=0, lengths=(1, 2), faults=(0,) * 4)
    turns = Turns(
        timing=timing,
        module="",
        tester="",
        calls=1,
        latency_ns=(5.0, 5.0, 5.0, 5.0),
        minor_faults=0.0,
    )
    answer = json.loads(protocol.render_event(protocol.Answered(answers={}), 0.0))
    booted = protocol.Booted(release=RELEASE, python="3.13.0")
    return {
        "boot": protocol.render_event(booted, 1.0),
        "end": protocol.render_event(protocol.Ended(), 9.0),
        "waiting": protocol.render_event(protocol.Waiting(tests={}), 2.0),
        "collected": protocol.render_event(protocol.Waiting(tests=TESTS), 2.0),
        "ready": protocol.render_event(protocol.Ready(), 2.0),
        "section": protocol.render_event(protocol.SectionBegan(), 2.0),
        "answer": json.dumps({**answer, "answers": "@ANSWERS@"}) + "\n",
        "figure": _edit(
            protocol.FigureTaken(values=segments),
            timing="TIMING",
            cell="CELL",
            load="LOAD",
            first="FIRST",
        ),
        "turns": _edit(
            protocol.TurnsTaken(values=turns), timing="TIMING", module="MODULE", tester="TESTER"
        ),
        "oops": OOPS,
        "jobs": {
            "matrix": run_cell(),
            "count": count(),
            "measure": measure(),
            "turns": (begin("@CELL@"), ("turns", "@CELL@"), end()),
            "differential": serve(),
        },
        "cells": {},
        "packages": packages,
        "refusals": {},
        "stalls": {},
    }


#: The verbs whose VMs are clones unless they are told that each of them boots.
CLONING = ("test", "soak", "zoo", "counter", "mutate")

#: What a kernel's build has that can be debugged.
DEBUGGED = ("build/vmlinux", "build/vmlinux-gdb.py")

#: What a kernel says at its 3rd second.
OOPS = "[    3.000000][    T7] BUG: kernel NULL pointer dereference, address: 0000000000000010\n"
FOREIGN_RACE = "[    3.000000][    T7] BUG: KCSAN: data-race in vfs_read / vfs_write\n"
OWN_RACE = "[    3.000000][    T7] BUG: KCSAN: data-race in toy_read [toy_c] / vfs_write\n"


# -- the host ---------------------------------------------------------------------------------


@dataclass
class Host:
    """A host on which nothing runs but the player: a project, a cache, and what was started."""

    home_dir: Path
    project_dir: Path
    lines: dict[str, Any]
    scripts: dict[str, tuple[Act, ...]] = field(default_factory=dict)
    # Whether the VMs of every verb boot.
    cold: bool = True

    def play(self, vm: str, *acts: Act) -> None:
        """Let a VM play a script, instead of one in which all passes.

        Args:
            vm: How the path of its folder ends; or its job, or "probe" for one that tries KVM.
            acts: The script.
        """
        self.scripts[vm] = acts
        self.write()

    def play_cell(self, name: str, *acts: Act) -> None:
        """Let a cell of every VM be played by a script; "matrix c/c" is one of that job alone."""
        self.lines["cells"][name] = acts
        self.write()

    def refuse(self, name: str, words: str = REFUSAL) -> None:
        """Let the compilers refuse a module or a program."""
        self.lines["refusals"][name] = words
        self.write()

    def stall(self, name: str, *, interrupt: bool = False) -> None:
        """Let the build of a module come to no end; press Ctrl-C when it has begun."""
        self.lines["stalls"][name] = interrupt
        self.write()

    def write(self) -> None:
        """Write what the player reads."""
        (self.home_dir / "lines.json").write_text(json.dumps(self.lines))
        (self.home_dir / "scripts.json").write_text(json.dumps(self.scripts))

    @property
    def started(self) -> list[dict[str, Any]]:
        """What the player noted: VMs and their children, in that order."""
        path = self.home_dir / "started.jsonl"
        lines = path.read_text().splitlines() if path.exists() else ()
        return [json.loads(line) for line in lines]

    @property
    def vms(self) -> list[str]:
        """The folders of all VMs that were started, below ``out``."""
        out = f"{self.project_dir}/out/"
        found = [one["vm"] for one in self.started if "vm" in one]
        return [path.removeprefix(out) for path in found if path.startswith(out)]

    @property
    def alive(self) -> list[int]:
        """Which of the processes that were started are still there."""
        return [pid for pid in self._pids if _is_alive(pid, 0)]

    @property
    def left(self) -> list[int]:
        """Which of them are still there after a while: a signal takes its time."""
        return [pid for pid in self._pids if _is_alive(pid, END_TIMEOUT_S)]

    @property
    def _pids(self) -> list[int]:
        return [one.get("child", one["pid"]) for one in self.started]

    def call(self, *arguments: str) -> int:
        """Call a verb as the command does; return its exit code."""
        cold = ("--cold",) if self.cold and arguments[0] in CLONING else ()
        words = [*arguments, *cold]
        return cli.run_guarded(lambda: cli.cli(words, standalone_mode=False))

    def call_other(self, other: click.Command, *arguments: str) -> int:
        """Call a command that only a nox session has; return its exit code."""
        words = [*arguments, *(("--cold",) if self.cold else ())]
        return cli.run_guarded(lambda: other(words, standalone_mode=False))

    def read(self, name: str) -> Any:
        """Return a document of a folder of results."""
        return json.loads((self.project_dir / "out" / name).read_text())


def _is_alive(pid: int, limit_s: float) -> bool:
    """Tell whether a process still runs when some time has passed."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    ended, _, _ = select.select([descriptor], [], [], limit_s)
    os.close(descriptor)
    return not ended


def make_home(folder: Path, make_elf: MakeElf) -> Path:
    """Make a folder with the player in it, which is called as bwrap."""
    folder.mkdir()
    (folder / "player.py").write_text((Path(__file__).parent / "player.py").read_text())
    # The path of an interpreter on a first line may have no space. A copy of the folder has a
    # player of its own.
    call = f'{shlex.join((sys.executable, "-IS"))} "${{0%/*}}/player.py"'
    (folder / "bwrap").write_text(f'#!/bin/sh\nexec {call} "$@"\n')
    (folder / "bwrap").chmod(0o755)
    (folder / "ko").mkdir()
    attempts = [f"zoo_{name.replace('/', '_')}" for name in ZOO]
    for name in (*MODULES.values(), *attempts, *LAYOUTS):
        write_module(folder, name, make_elf)
    return folder


def write_module(home_dir: Path, name: str, make_elf: MakeElf) -> None:
    """Let the compilers make a module of a name, which says its language by its end."""
    rust = name.endswith("rust")
    content = make_elf(
        {"name": name, "vermagic": f"{RELEASE} SMP "},
        ("rustc version 1.85.1",) if rust else ("GCC: (Debian) 14.2",),
        (f"_RNv_{name}",) if rust else (f"{name}_read",),
    )
    (home_dir / "ko" / f"{name}.ko").write_bytes(content)


def make_host(
    folders: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Host:
    """Make a host, and let this process work on it.

    Args:
        folders: Where the project, the player, and the cache lie. All tests share them: what one
            of them built, the others need not build. Nothing else is left of it.
        make_elf: Writes the modules.
        monkeypatch: Sets PATH, the cache and the working folder.
    """
    folder = folders.getbasetemp() / "toy"
    home_dir, project_dir = folder / "home", folder / "project"
    if not home_dir.exists():
        folder.mkdir()
        make_home(home_dir, make_elf)
    for path in (project_dir / "out").glob("[!b]*"):
        cache.remove_tree(path) if path.is_dir() else path.unlink()
    for name in ("bench", "zoo"):
        cache.remove_tree(project_dir / "out" / name)
    (home_dir / "started.jsonl").unlink(missing_ok=True)
    for name, text in PROJECT.items():
        path = project_dir / name
        if not (path.exists() and path.read_text() == text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    host = Host(
        home_dir=home_dir,
        project_dir=project_dir,
        lines=plan_lines({"c_tester": "toy_tester_c", "rust_tester": "toy_tester_rust"}),
    )
    host.write()
    monkeypatch.setenv("PATH", f"{home_dir}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TWINMOD_CACHE_DIR", str(folder / "cache"))
    monkeypatch.chdir(project_dir)
    # The project has the kernel that the player boots, and no other.
    monkeypatch.setattr(project_config, "read_builtin", dict)
    write_cache(read_config())
    return host


def read_config() -> Config:
    """Return the configuration of the project that we are in."""
    return project_config.read_config(Path.cwd())


def write_cache(config: Config) -> None:
    """Put a chroot and a kernel into the cache as if setup had made them."""
    cache.ensure_cache_dir()
    entry = roots.plan_entry(config.chroot, config.mirror)
    if entry.find() is None:
        for name in (
            *initramfs.PROGRAMS,
            initramfs.SETARCH,
            "usr/lib/python3.13/os.py",
            "usr/bin/gdb",
        ):
            touch(entry.path / "root" / name)
        cache.write_record(entry.path, {"mirror": config.mirror}, ())
    kernel = find.choose_kernel(config)
    if kernel.find() is None:
        kernel_dir = cache.find_cache_dir() / "kernel" / kernel.key
        for name in ("vm/vmlinux", "vm/9p.ko", "build/.config", *DEBUGGED, "linux/Makefile"):
            touch(kernel_dir / name)
        proof = {
            "reference": "the toy kernel",
            "rustc": "rustc 1.85.1",
            "checked_symbols": 7,
            "uncompared": "it is a toy",
        }
        record = {
            "release": RELEASE,
            "version": "7.3.4-1",
            "suite": "toy",
            "cc": "gcc",
            "vm_modules": ["9p.ko"],
            "proof": proof,
        }
        cache.write_record(kernel_dir, record, ())


def touch(path: Path) -> None:
    """Have an empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def run_matrix(host: Host, progress: Progress) -> matrix_run.Run:
    """Run the matrix as other programs of the project do, without a verb."""
    workspace = Workspace(config=read_config(), progress=progress, cold=True)
    selection = Selection()
    wanted = matrix_run.Wanted(selection=selection, out_dir=host.project_dir / "out/other")
    return matrix_run.run_test(workspace, workspace.setup(), wanted)


# -- VMs without a verb -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a VM is made of, where no verb plans it."""

    setting: boot.Setting
    products: tuple[Product, ...]
    out_dir: Path

    def plan_matrix(self, *cells: Cell | DifferentialCell) -> boot.MatrixWork:
        """Return work for cells of the matrix."""
        return boot.MatrixWork(cells=cells, products=self.products, limit_s=5.0)

    def plan_differential(self, life_s: float = boot.RUN_TIMEOUT_S) -> boot.DifferentialWork:
        """Return work for a VM that does the differential alone and lives for so long."""
        return differential_run.plan_work(read_config(), self.products, life_s)

    def run_cells(self, progress: Progress, *cells: Cell) -> tuple[tuple[CellResult, ...], Boots]:
        """Run some cells, or all, in as many VMs as it takes."""
        work = self.plan_matrix(*(cells or CELLS))
        return running.run_cells(self.setting, work, self.out_dir, progress)

    def boot(
        self,
        work: boot.CellsWork,
        watch: Callable[[str], None] = lambda line: None,
        converse: Callable[[Vm], None] | None = None,
    ) -> VmEnd:
        """Boot one VM, and return how it ended."""
        plan = strategy.prepare_vm(self.setting, work, self.out_dir / "vm-1")
        return session.boot(plan, watch, converse)

    def serve(self) -> AbstractContextManager[Vm]:
        """Return the context of a VM for requests alone."""
        work = self.plan_differential()
        plan = strategy.prepare_vm(self.setting, work, self.out_dir / "again")
        return session.serve(plan, lambda line: None)

    def find_accelerator(self, *, remember: bool = True) -> Accelerator:
        """Return what a VM would run on here."""
        setting = self.setting
        return accelerator.find_accelerator(
            setting.tree, setting.chroot, setting.vm, remember=remember
        )


def save(setting: boot.Setting, progress: Progress) -> boot.Setting:
    """Return the setting of VMs that are clones, whatever became of a comparison."""
    base = snapshot.prepare_base(setting).ensure(progress)
    return replace(setting, snapshot=snapshot.prepare_snapshot(setting, base).ensure(progress))


def remove_saved() -> None:
    """Let there be no base and no snapshot."""
    for kind in (snapshot.BASE, snapshot.SNAPSHOT, snapshot.COUNTING):
        cache.remove_tree(cache.find_cache_dir() / kind)


def make_bench(
    host: Host,
    progress: Progress,
    *,
    boot_timeout_s: float = 60.0,
    silence_timeout_s: float = 60.0,
    recorded: bool = False,
) -> Bench:
    """Return what VMs are made of, built and set up by the player.

    Args:
        host: Whose project.
        progress: Told of all that is made.
        boot_timeout_s: How long a VM may take until its first line.
        silence_timeout_s: How long it may take to the next one.
        recorded: Whether its VMs can be replayed.
    """
    workspace = Workspace(config=read_config(), progress=progress)
    prepared = workspace.setup()
    products = workspace.build(prepared, LANGUAGES)
    setting = workspace.environment(prepared)
    vm = VmSpec(
        memory_mib=256,
        processors=1,
        boot_timeout_s=boot_timeout_s,
        test_timeout_s=5.0,
        silence_timeout_s=silence_timeout_s,
    )
    setting = replace(
        setting,
        vm=vm,
        accelerator=Accelerator(name=machine.AcceleratorName.TCG, reason="it is a toy"),
        snapshot=None,
    )
    return Bench(
        setting=recording.plan_recorded(setting) if recorded else setting,
        products=products,
        out_dir=host.project_dir / "out/test",
    )

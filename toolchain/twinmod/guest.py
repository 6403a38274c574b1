# SPDX-License-Identifier: GPL-2.0-only
"""A throwaway VM: a stock kernel, the chroot as its read-only root, and one way out.

QEMU runs inside the chroot, so it is the same everywhere, sees nothing of the host but what is
bound into its view, and dies with its caller.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from twinmod import (
    cache,
    commands,
    decode,
    faults,
    initramfs,
    process,
    resources,
    results,
    sandbox,
)
from twinmod.errors import BuildError, VmLostError
from twinmod.specs import (
    DIFFERENTIAL,
    Bind,
    Cell,
    CellResult,
    Check,
    Chroot,
    Command,
    KernelFault,
    KernelTree,
    Measurement,
    Product,
    Progress,
    TesterSpec,
    VmSpec,
)
from twinmod.visible import make_visible

VIEW = PurePosixPath("/view")
VIEW_INSIDE = VIEW / "twinmod"
RUN = sandbox.INSIDE / "run"
RESULTS = RUN / "results"

#: Where a recording is, as QEMU sees it.
RECORDING = sandbox.INSIDE / "recording"
EXECUTION = RECORDING / "execution"

#: What counts instructions and writes it down, what a VM's programs tell it with, and one of them.
NATIVE = sandbox.INSIDE / "native"
COUNTS = "counts"

#: Where a VM waits for gdb, as both see it: the path of the host may be too long for a socket.
GDB_SOCKET = RESULTS / "gdb.sock"

#: A VM that prints this came as far as its first program.
PROBE_MARK = "twinmod: the guest runs"
PROBE_TIMEOUT_S = 10.0

#: Changed when the probe may find something else on the same host.
PROBE_FORMAT = "2"

#: How many of QEMU's last lines say why it did not boot a guest: an assertion follows its reason.
QEMU_WORDS = 2

#: After its last event, or after the host gave up.
POWER_OFF_TIMEOUT_S = 10.0

#: A VM's whole life, whatever it says; a soak names its own.
RUN_TIMEOUT_S = 1800.0

#: How many boots of one run may stall: QEMU's translation was seen to do so, once in many boots,
#: on a host with more to do than it has processors.
STALLED_BOOTS = 2

#: Expedited grace periods: loads and unloads, of which the matrix makes a hundred a cell, wait
#: for several each.
KERNEL_PARAMETERS = (
    "console=ttyS0",
    "loglevel=5",
    "panic=-1",
    "oops=panic",
    "random.trust_cpu=on",
    "rcupdate.rcu_expedited=1",
    # What the agent says is as whole as what the kernel says.
    "printk.devkmsg=on",
)

#: How many cells the title of a VM's phase names.
SHOWN_CELLS = 6

#: Added to them, by the mode of the work. Pages that nobody asked to be zero are not: a kernel that
#: makes them so, as Debian's does, hides a driver that forgot to ask. Huge pages of which a part is
#: given back stay whole for a while, and are then in no use that the kernel counts: they look like
#: pages that a driver lost.
MODE_PARAMETERS = {"matrix": "init_on_alloc=0 transparent_hugepage=never"}

#: What decides how many instructions a guest takes. Without its fast string instructions a
#: processor copies 8 bytes an instruction; with them it would copy anything in one, or in one per
#: byte.
COUNTING_MACHINE = (
    "-accel",
    "tcg",
    "-icount",
    "shift=0,sleep=off",
    "-cpu",
    "max,-erms,-fsrm,-fsrs",
)

#: What QEMU runs a guest on, by accelerator.
MACHINES = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg,thread=multi", "-cpu", "max"),
    "icount": (
        *COUNTING_MACHINE,
        "-plugin",
        f"{NATIVE}/profiler.so,out={RESULTS}/{COUNTS},symbols={RESULTS}/symbols",
    ),
    # An instruction takes 2 ns of the guest's time.
    "record": ("-accel", "tcg", "-icount", f"shift=1,rr=record,rrfile={EXECUTION}", "-cpu", "max"),
}

#: Added to KERNEL_PARAMETERS, by accelerator. Emulated processors share one time stamp counter, and
#: a kernel that does not believe it can hang: in watchdog_check_skew() of Linux 7.3, in
#: kernel/time/clocksource.c, two processors wait for each other with interrupts off, for as long as
#: a clock allows that stands still when it is jiffies. Seen in one of some twenty boots on a host
#: with more to do than it has processors.
ACCELERATOR_PARAMETERS = {
    "tcg": ("tsc=reliable",),
    # The guest's clocks are its count of instructions.
    "icount": ("tsc=reliable", "clocksource=tsc"),
}

#: What a recorded VM's folder has to say how it was booted.
RECORDING_FILE = "recording.json"
RECORDING_SCHEMA = "twinmod.recording/1"

#: How a VM without a virtio port, as a recorded one, has its events on a serial line.
SERIAL_PORT = "/dev/ttyS1"

#: How many times as long a VM may take that is recorded, and one that is replayed: one thread
#: emulates all of it, and a replay was seen to take six times as long as what it repeats.
RECORD_PATIENCE = 4
REPLAY_PATIENCE = 10 * RECORD_PATIENCE

#: How many times as long a VM that counts may take to boot, and to say something: one thread
#: emulates all of it.
EXACT_PATIENCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What a VM runs on, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Userland:
    """What the VM's programs are made of, beside the chroot itself."""

    site_dir: Path
    # (tester, the folder it is imported from)
    tester_dirs: tuple[tuple[TesterSpec, Path], ...]
    # Holds package/ with the agent, and matrix/.
    programs_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a VM is to do; becomes the agent's plan."""

    # matrix, count, measure, or shell; DIFFERENTIAL among the cells has a work of its own.
    mode: str
    cells: tuple[Cell, ...]
    products: tuple[Product, ...]
    # Seconds that a cell may go without a step.
    limit_s: float
    pytest_args: tuple[str, ...] = ()
    # The matrix's package with the executor of the differential.
    differential: str = ""
    threads: int = 0
    increments: int = 0
    # How a thread increments: lock, add or racy, as the testers have it.
    method: str = "lock"
    measurement: Measurement | None = None
    # The VM's whole life, whatever it says.
    life_s: float = RUN_TIMEOUT_S
    # Whether a debugger may come, in a shell.
    gdb: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BootPlan:
    """All that it takes to boot one VM; nothing has happened yet."""

    command: Command
    # None: another VM left it.
    initramfs: bytes | None
    agent_plan: Mapping[str, Any]
    # Console, results and the plan of this VM.
    run_dir: Path
    boot_timeout_s: float
    silence_timeout_s: float
    # What it takes to replay it, for one that is recorded.
    recording: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every VM of a run has in common."""

    tree: KernelTree
    chroot: Chroot
    userland: Userland
    vm: VmSpec
    accelerator: Accelerator
    # What the modules say as theirs.
    version: str
    # Holds profiler.so and marks.so, for VMs whose instructions are counted.
    native_dir: Path | None = None
    # What a VM has as its root instead of the chroot, whose Python it must have.
    root_dir: Path | None = None

    @property
    def recorded(self) -> bool:
        """Whether its VMs can be replayed: nothing comes in once they run."""
        return self.accelerator.name == "record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Boots:
    """How many VMs a run took."""

    total: int = 0
    # Those that fell silent before the agent began, and were booted again.
    stalled: int = 0
    # What each of them spent its time on: (number, title, seconds).
    phases: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmEnd:
    """How one VM ended."""

    transcript: results.Transcript
    # One of results.ENDS.
    end: str
    console: str
    # What QEMU itself had to say.
    qemu_log: str
    # The console's lines that a program wrote and that look like the begin of a kernel's report.
    by_programs: tuple[str, ...] = ()
    # (title, seconds) of what it spent its time on.
    phases: tuple[tuple[str, float], ...] = ()


# -- plan -------------------------------------------------------------------------------------


def plan_view(setting: Setting, products: tuple[Product, ...], run_dir: Path) -> tuple[Bind, ...]:
    """Return what QEMU sees: the chroot again as the guest's root, and what the guest needs.

    Nothing else of the host can be reached from the guest.
    """
    userland = setting.userland
    inside = VIEW_INSIDE
    return (
        Bind(source_path=run_dir, target_path=RUN),
        Bind(source_path=run_dir / "results", target_path=RESULTS, writable=True),
        Bind(source_path=setting.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
        Bind(source_path=setting.root_dir or setting.chroot.root_dir, target_path=VIEW),
        Bind(source_path=userland.programs_dir / "package", target_path=inside / "package"),
        Bind(source_path=userland.site_dir, target_path=inside / "site"),
        Bind(source_path=userland.programs_dir / "matrix", target_path=inside / "matrix"),
        *(
            Bind(source_path=path, target_path=inside / f"tester-{tester.name}")
            for tester, path in userland.tester_dirs
        ),
        *(
            Bind(source_path=product.path, target_path=inside / "module" / product.file_name)
            for product in products
        ),
        *(
            Bind(source_path=setting.native_dir, target_path=folder / "native")
            for folder in (inside, sandbox.INSIDE)
            if setting.native_dir
        ),
    )


def plan_recorded_view(setting: Setting, run_dir: Path) -> tuple[Bind, ...]:
    """Return what QEMU sees of a VM that has all it needs in its initramfs."""
    return (
        Bind(source_path=run_dir, target_path=RUN),
        Bind(source_path=run_dir / "results", target_path=RESULTS, writable=True),
        Bind(source_path=run_dir / "recording", target_path=RECORDING, writable=True),
        Bind(source_path=setting.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
    )


def plan_environment(userland: Userland) -> tuple[tuple[str, str], ...]:
    """Return the environment of the program inside the VM."""
    names = ("package", "site", *(f"tester-{tester.name}" for tester, _ in userland.tester_dirs))
    return (
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LC_ALL", "C.UTF-8"),
        ("HOME", "/tmp"),
        ("TERM", "linux"),
        ("PYTHONPATH", ":".join(str(sandbox.INSIDE / name) for name in names)),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        # What a plugin of another package would load costs a second when emulated.
        ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
    )


def plan_qemu(
    vm: VmSpec,
    accelerator: str,
    *,
    interactive: bool = False,
    gdb: bool = False,
    parameters: str = "",
) -> tuple[str, ...]:
    """Return QEMU's argument vector, as it is called inside the chroot.

    Args:
        vm: Memory and processors.
        accelerator: One of MACHINES.
        interactive: The console is the caller's terminal, and there is no other way out.
        gdb: A debugger may come at any time.
        parameters: Added to the kernel's command line.
    """
    added = (*ACCELERATOR_PARAMETERS.get(accelerator, ()), *parameters.split())
    return (
        "qemu-system-x86_64",
        "-M",
        "q35",
        *MACHINES[accelerator],
        "-smp",
        str(vm.processors),
        "-m",
        str(vm.memory_mib),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-nic",
        "none",
        "-kernel",
        str(sandbox.INSIDE / "vmlinux"),
        "-initrd",
        str(RUN / "initramfs"),
        "-append",
        " ".join((*KERNEL_PARAMETERS, *added)),
        *(
            ()
            if accelerator == "record"
            else (
                "-virtfs",
                f"local,path={VIEW},mount_tag=root,security_model=none,readonly=on,multidevs=remap",
                "-virtfs",
                f"local,path={RESULTS},mount_tag=results,security_model=none",
            )
        ),
        *(plan_gdb_stub() if gdb else ()),
        *plan_way_out(accelerator, interactive=interactive),
    )


def plan_gdb_stub() -> tuple[str, ...]:
    """Return the arguments of QEMU that let a debugger come."""
    return ("-gdb", f"unix:{GDB_SOCKET},server=on,wait=off")


def plan_way_out(accelerator: str, *, interactive: bool) -> tuple[str, ...]:
    """Return the arguments of QEMU for what the VM says; see plan_qemu."""
    if interactive:
        return ("-serial", "mon:stdio")
    events = ("-chardev", "stdio,id=events,signal=off")
    console = ("-serial", f"file:{RESULTS}/console.log")
    if accelerator == "record":
        return (*console, *events, "-serial", "chardev:events")
    port = ("-device", "virtserialport,chardev=events,name=twinmod")
    return (*console, "-device", "virtio-serial-pci", *events, *port)


def plan_exact(setting: Setting, native_dir: Path) -> Setting:
    """Return the setting of VMs whose clocks count instructions: a nanosecond is one of them.

    Args:
        setting: Of other VMs.
        native_dir: Holds profiler.so and marks.so.

    Source: qemu(1), ``-icount``: an instruction takes 2^0 ns, on one processor.
    """
    why = "a nanosecond of the guest's time is one instruction of it"
    return replace(
        setting,
        accelerator=Accelerator(name="icount", reason=why),
        native_dir=native_dir,
        vm=plan_patience(replace(setting.vm, processors=1), EXACT_PATIENCE),
    )


def plan_recorded(setting: Setting) -> Setting:
    """Return the setting of VMs that can be replayed, instruction for instruction.

    Source: docs/system/replay.rst, QEMU 10.0: one processor, and no device that it does not know.
    """
    why = "on one processor, with everything in memory, so that it can be replayed"
    return replace(
        setting,
        accelerator=Accelerator(name="record", reason=why),
        vm=plan_patience(replace(setting.vm, processors=1), RECORD_PATIENCE),
    )


def plan_patience(vm: VmSpec, times: float) -> VmSpec:
    """Return a VM that may take some times as long to boot, and to say something."""
    return replace(
        vm, boot_timeout_s=times * vm.boot_timeout_s, silence_timeout_s=times * vm.silence_timeout_s
    )


def plan_agent(setting: Setting, work: Work) -> dict[str, Any]:
    """Return what the agent is told: JSON's own types."""
    inside = sandbox.INSIDE
    paths = {(p.module, p.variant): str(inside / "module" / p.file_name) for p in work.products}
    return {
        "mode": work.mode,
        "port": SERIAL_PORT if setting.recorded else "",
        "cells": [
            {
                "name": cell.name,
                "module": cell.module,
                "tester": cell.tester,
                "work": "differential" if cell == DIFFERENTIAL else work.mode,
                "path": paths.get((cell.module, cell.variant), ""),
                "rules": list(cell.rules),
                "files": list(cell.files),
            }
            for cell in work.cells
        ],
        "modules": {p.module: {"path": paths[p.module, p.variant]} for p in work.products},
        "testers": {tester.name: tester.package for tester, _ in setting.userland.tester_dirs},
        "matrix": str(inside / "matrix"),
        "version": setting.version,
        "differential": work.differential,
        "pytest_args": list(work.pytest_args),
        "limit_s": work.limit_s,
        "threads": work.threads,
        "increments": work.increments,
        "method": work.method,
        "measurement": asdict(work.measurement) if work.measurement else None,
        "marks": str(NATIVE / "marks.so"),
        "loop": str(NATIVE / "loop"),
    }


def plan_boot(setting: Setting, work: Work, run_dir: Path) -> BootPlan:
    """Plan one VM.

    Args:
        setting: What it is made of.
        work: What it is to do.
        run_dir: Its own folder; must not exist.
    """
    qemu = plan_qemu(
        setting.vm,
        setting.accelerator.name,
        interactive=work.mode == "shell",
        gdb=work.gdb,
        parameters=" ".join(
            (
                MODE_PARAMETERS.get(work.mode, ""),
                *setting.tree.parameters,
                *(("nokaslr",) if work.gdb or setting.recorded else ()),
            )
        ),
    )
    view = plan_view(setting, work.products, run_dir)
    agent_plan = plan_agent(setting, work)
    content = (
        plan_whole_content(setting, view, agent_plan)
        if setting.recorded
        else plan_first_content(setting)
    )
    entered = sandbox.plan_enter(
        setting.chroot,
        qemu,
        binds=plan_recorded_view(setting, run_dir) if setting.recorded else view,
        hidden=(VIEW_INSIDE,),
        terminal=work.mode == "shell",
        devices=("/dev/kvm",) if setting.accelerator.name == "kvm" else (),
    )
    command = Command(
        argv=entered,
        purpose="the VM did not run",
        log_path=run_dir / "qemu.log",
        timeout_s=work.life_s * (RECORD_PATIENCE if setting.recorded else 1),
    )
    return BootPlan(
        command=command,
        initramfs=initramfs.plan_archive(content),
        agent_plan=agent_plan,
        run_dir=run_dir,
        boot_timeout_s=setting.vm.boot_timeout_s,
        silence_timeout_s=setting.vm.silence_timeout_s,
        recording=plan_recording(setting, work, qemu) if setting.recorded else None,
    )


def plan_first_content(setting: Setting) -> initramfs.Content:
    """Return what a VM has in memory that has its root from the host."""
    module_paths = setting.tree.vm_module_paths
    busybox = (setting.chroot.root_dir / "usr/bin/busybox").read_bytes()
    init = _render_init(setting, tuple(path.name for path in module_paths), whole=False)
    return initramfs.Content(
        folders=("bin", "modules", "proc", "dev", "lower", "upper", "newroot"),
        files=(
            ("bin/busybox", busybox),
            *((f"modules/{path.name}", path.read_bytes()) for path in module_paths),
            ("init", init),
        ),
    )


def plan_whole_content(
    setting: Setting, view: tuple[Bind, ...], agent_plan: Mapping[str, Any]
) -> initramfs.Content:
    """Return what a VM has in memory that has nothing else.

    Args:
        setting: What it is made of.
        view: What another VM would see of the host.
        agent_plan: What it is to do.
    """
    additions = (
        (PurePosixPath("/", bind.target_path.relative_to(VIEW)), bind.source_path)
        for bind in view
        if VIEW_INSIDE in bind.target_path.parents
    )
    root = initramfs.read_root(setting.chroot.root_dir, additions)
    for name in ("proc", "dev", "sys", "tmp", "results"):
        root.add_folder(name)
    root.add_content("results/plan.json", json.dumps(agent_plan).encode())
    root.add_content("init", _render_init(setting, (), whole=True))
    return root.plan_content()


def _render_init(setting: Setting, vm_modules: tuple[str, ...], *, whole: bool) -> bytes:
    return resources.render_template(
        "init.j2",
        {
            "probe": "",
            "vm_modules": vm_modules,
            # 0: the sources are on the host, as they are.
            "source_time": initramfs.SOURCE_TIME if whole else 0,
            "counted": setting.native_dir is not None,
            "environment": plan_environment(setting.userland),
        },
    ).encode()


def plan_recording(setting: Setting, work: Work, qemu: tuple[str, ...]) -> dict[str, Any]:
    """Return what it takes to replay a VM, beside its folder: JSON's own types."""
    return {
        "schema": RECORDING_SCHEMA,
        "kernel": setting.tree.name,
        "tree": setting.tree.key,
        "chroot": setting.chroot.key,
        "qemu": list(qemu),
        "modules": {p.module: p.sha256 for p in work.products},
    }


# -- act --------------------------------------------------------------------------------------


@contextmanager
def write_run_dir(plan: BootPlan) -> Iterator[None]:
    """Make a VM's folder; what it boots from is there until the context is left."""
    (plan.run_dir / "results").mkdir(parents=True)
    (plan.run_dir / "results/plan.json").write_text(json.dumps(plan.agent_plan, indent=2))
    initramfs_path = plan.run_dir / "initramfs"
    if plan.initramfs is not None:
        initramfs_path.write_bytes(plan.initramfs)
    if plan.recording is not None:
        (plan.run_dir / "recording").mkdir()
        text = json.dumps(plan.recording, indent=2) + "\n"
        (plan.run_dir / RECORDING_FILE).write_text(text)
    try:
        yield
    finally:
        if plan.recording is None:
            initramfs_path.unlink(missing_ok=True)


class Vm:
    """A VM that runs: what it says, event by event, and a way to ask it something.

    Args:
        plan: What was booted.
        qemu: With pipes as its standard input and output.
        kept: Gets every line of the VM that is no answer.
        watch: Called with every such line, as it comes.
    """

    def __init__(
        self,
        plan: BootPlan,
        qemu: process.Process,
        kept: IO[str],
        watch: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.lines: list[str] = []
        # One of results.ENDS, once it is gone.
        self.end = "exited"
        self._qemu = qemu
        self._kept = kept
        self._watch = watch
        self._source = process.read_lines(qemu, _plan_patience(plan, self.lines))

    def read_event(self) -> dict[str, Any] | None:
        """Return what it says next; None: it says nothing any more."""
        try:
            for line in self._source:
                events = results.parse_events((line,))
                # Answers are for whoever asked, and in a soak there are millions.
                if not (events and events[0]["event"] == "answer"):
                    self._keep(line)
                for event in events:
                    return event
        except TimeoutError:
            self.end = "silent"
        return None

    def _keep(self, line: str) -> None:
        self.lines.append(line)
        self._kept.write(line + "\n")
        self._kept.flush()
        self._watch(line)

    def ask(self, request: object) -> dict[str, Any]:
        """Return the answer to a request, while the VM is ready for one.

        Raises:
            VmGoneError: It ended, fell silent, or ended the cell, and did not answer.
        """
        self.say(request)
        while (event := self.read_event()) is not None and event["event"] != "cell_end":
            if event["event"] == "answer":
                return event
        raise VmGoneError

    def say(self, value: object) -> None:
        """Send one JSON value; nothing happens when the VM is gone."""
        process.send_line(self._qemu, json.dumps(value))

    def wait_for_end(self) -> None:
        """Wait until it is gone, after it said its last word."""
        while self.read_event() is not None:
            pass
        try:
            process.wait_for_end(self._qemu, POWER_OFF_TIMEOUT_S)
        except TimeoutError:
            self.end = "silent"


class VmGoneError(Exception):
    """A VM did not answer: whoever asked knows what that means."""


@contextmanager
def run_vm(plan: BootPlan, watch: Callable[[str], None]) -> Iterator[Vm]:
    """Boot a VM that lives no longer than the context, which waits for it to end by itself."""
    with (
        write_run_dir(plan),
        (plan.run_dir / "qemu.log").open("wb") as log,
        (plan.run_dir / "events.jsonl").open("w", encoding="utf-8") as kept,
        process.start(plan.command, stdin=process.PIPE, stderr=log) as qemu,
    ):
        vm = Vm(plan, qemu, kept, watch)
        yield vm
        vm.wait_for_end()


@contextmanager
def serve(
    setting: Setting, work: Work, run_dir: Path, watch: Callable[[str], None]
) -> Iterator[Vm]:
    """Boot a VM for requests alone; it is ready when the context is entered.

    Raises:
        VmLostError: It did not come so far.
    """
    plan = plan_boot(setting, replace(work, cells=(DIFFERENTIAL,)), run_dir)
    with run_vm(plan, watch) as vm:
        while (event := vm.read_event()) is not None and event["event"] != "ready":
            pass
        if event is None:
            raise plan_boot_error(plan, read_end(vm, (DIFFERENTIAL,)))
        yield vm
        vm.say(None)


def read_end(vm: Vm, cells: tuple[Cell, ...]) -> VmEnd:
    """Return how a VM ended that is gone, and what it did of the cells that it was given."""
    run_dir = vm.plan.run_dir
    console = read_console(run_dir)
    events = results.parse_events(vm.lines)
    return VmEnd(
        transcript=results.parse_transcript(events, cells),
        end=vm.end,
        console=console,
        qemu_log=(run_dir / "qemu.log").read_text(errors="replace"),
        by_programs=results.parse_program_lines(events),
        phases=results.parse_phases(events),
    )


def read_console(run_dir: Path) -> str:
    """Return what the kernel of a VM said, "" when it did not come so far."""
    path = run_dir / "results/console.log"
    return path.read_text(errors="replace") if path.exists() else ""


def boot(
    plan: BootPlan,
    cells: tuple[Cell, ...],
    watch: Callable[[str], None],
    converse: Callable[[Vm], None] | None = None,
) -> VmEnd:
    """Boot a VM and read what it says until it is gone.

    Args:
        plan: The VM.
        cells: What it was given.
        watch: Called with every line that it says, as it comes.
        converse: Called when it is ready for requests; returns when it has no more.

    Returns:
        How it ended; it is gone, whatever happened.
    """
    with run_vm(plan, watch) as vm:
        while (event := vm.read_event()) is not None:
            if event["event"] == "ready" and converse is not None:
                converse(vm)
                vm.say(None)
    return read_end(vm, cells)


def _plan_patience(plan: BootPlan, lines: list[str]) -> Callable[[], float]:
    """Return how long the next line may take: the first one takes a boot."""
    deadline = time.monotonic() + plan.command.timeout_s

    def patience() -> float:
        limit_s = plan.silence_timeout_s if lines else plan.boot_timeout_s
        return min(limit_s, deadline - time.monotonic())

    return patience


class Watch:
    """Shows, while a VM runs, which cell it is in and how many tests or figures are done."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.cell = "boot"
        self.done = 0

    def __call__(self, line: str) -> None:
        """Take note of one line of the VM."""
        for event in results.parse_events((line,)):
            if event["event"] == "cell":
                self.cell, self.done = event["cell"], 0
            elif event["event"] in ("result", "figure", "turns"):
                self.done += 1
        # The differential says for itself how far it is.
        if self.cell != DIFFERENTIAL.name:
            self.progress.detail(f"{self.cell}, {self.done} done")


def run_cells(
    setting: Setting,
    work: Work,
    out_dir: Path,
    progress: Progress,
    converse: Callable[[Vm], None] | None = None,
) -> tuple[tuple[CellResult, ...], Boots]:
    """Run cells, in as many VMs as it takes: one, and another for each that a cell ended.

    Args:
        setting: What a VM is made of.
        work: What is to be done.
        out_dir: Gets a folder for each VM.
        progress: Told of each VM, and of each test.
        converse: Holds the conversation of the cell DIFFERENTIAL, once.

    Returns:
        A result for every cell, in the order of the work, and what it took.

    Raises:
        VmLostError: A VM did not come as far as a cell.
    """
    pending = work.cells
    found: list[CellResult] = []
    boots = Boots()
    while pending:
        boots = replace(boots, total=boots.total + 1)
        plan = plan_boot(setting, replace(work, cells=pending), out_dir / f"vm-{boots.total}")
        names = render_names(pending)
        with progress.phase(f"VM {boots.total} ({setting.accelerator.name}): {names}"):
            end = boot(plan, pending, Watch(progress), converse)
        spent = tuple((boots.total, title, seconds) for title, seconds in end.phases)
        boots = replace(boots, phases=(*boots.phases, *spent))
        if is_stalled(end) and boots.stalled < STALLED_BOOTS:
            boots = replace(boots, stalled=boots.stalled + 1)
            words = find_words(end.console) or "it said nothing"
            late = f"the VM did not boot within {plan.boot_timeout_s:.0f} s"
            progress.note(f"{late}, {words}; once more")
            continue
        found_faults, tolerated = find_faults(
            end.console, work.products, plan.run_dir, end.by_programs
        )
        if tolerated:
            progress.note(f"{tolerated} data races in the kernel's own code, none in a module")
        ended = results.classify(end.transcript, end.end, found_faults)
        ended = decode.decode(ended, work.products, setting.tree.compilers)
        ended = tuple(replace(result, vm=boots.total) for result in ended)
        if not ended and not found:
            raise plan_boot_error(plan, end)
        # What earlier VMs found is kept when a later one does not come as far as a cell.
        found += ended or plan_unreached(pending, render_unreached(end))
        done = {result.cell for result in found}
        pending = tuple(cell for cell in pending if cell not in done)
    return tuple(found), boots


def find_faults(
    console: str, products: tuple[Product, ...], run_dir: Path, by_programs: tuple[str, ...] = ()
) -> tuple[tuple[KernelFault, ...], int]:
    """Return the faults that end a cell, and how many others a VM's kernel reported."""
    modules = tuple(product.module for product in products)
    log = str(run_dir / "results/console.log")
    told = faults.parse_faults(console, by_programs)
    bad = tuple(
        replace(fault, log=log) for fault in told if not faults.is_tolerated(fault, modules)
    )
    return bad, len(told) - len(bad)


def render_names(cells: tuple[Cell, ...]) -> str:
    """Return the names of cells, or of the first of many."""
    shown = " ".join(cell.name for cell in cells[:SHOWN_CELLS])
    more = len(cells) - SHOWN_CELLS
    return f"{shown} and {more} more" if more > 0 else shown


def is_stalled(end: VmEnd) -> bool:
    """Tell whether a VM fell silent before its agent began, and its kernel said no fault.

    No module of ours was there yet: it says nothing of them, and it is counted.
    """
    unheard = end.end == "silent" and not end.transcript.booted
    return unheard and not faults.parse_faults(end.console)


def plan_unreached(cells: tuple[Cell, ...], why: str) -> tuple[CellResult, ...]:
    """Return the results of cells whose VM did not come as far as any of them."""
    return tuple(CellResult(cell=cell, outcome="lost", problems=(why,)) for cell in cells)


def render_unreached(end: VmEnd) -> str:
    """Return why a VM's cells have no result: how it ended, and what its kernel said last."""
    why = "fell silent" if end.end == "silent" else "ended"
    words = find_words(end.console) or "it said nothing"
    return f"the VM {why} before its first cell; {words}"


def plan_boot_error(plan: BootPlan, end: VmEnd) -> VmLostError:
    """Return the error of a VM that did not come as far as a cell."""
    tail = process.render_tail(end.console, plan.command.tail_lines)
    return VmLostError(
        render_unreached(end),
        facts=(
            ("command", process.render_command(plan.command)),
            ("QEMU", process.render_tail(end.qemu_log, plan.command.tail_lines) or "(nothing)"),
            ("console", "(its last lines)\n" + tail if tail else "(nothing)"),
            ("folder", str(plan.run_dir)),
        ),
        hint=commands.render("doctor"),
    )


def run_shell(setting: Setting, work: Work, run_dir: Path) -> int:
    """Boot a VM for a person; return QEMU's status."""
    plan = plan_boot(setting, work, run_dir)
    with write_run_dir(plan):
        return process.run_interactive(plan.command)


# -- the accelerator --------------------------------------------------------------------------


def find_accelerator(
    tree: KernelTree | None, chroot: Chroot | None, vm: VmSpec, *, remember: bool = True
) -> Accelerator:
    """Return what a VM runs on: KVM when a real guest booted with it, TCG otherwise.

    A /dev/kvm that opens proves nothing: on some nested hosts it cannot run a guest.

    Args:
        tree: What to boot; without it nothing can be tried.
        chroot: Where QEMU is.
        vm: Memory and processors.
        remember: Keep what was found until this host boots again.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        exists = Path("/dev/kvm").exists()
        why = "this user may not open /dev/kvm" if exists else "this host has no /dev/kvm"
        return Accelerator(name="tcg", reason=why)
    if tree is None or chroot is None:
        return Accelerator(name="tcg", reason="KVM is tried with a real guest after setup")
    path = cache.find_cache_dir() / "accelerator.json"
    identity = f"{_read_boot_id()} {tree.key} {PROBE_FORMAT}"
    try:
        known = json.loads(path.read_text())
        if known["identity"] == identity:
            return Accelerator(name=known["name"], reason=known["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = probe_kvm(tree, chroot, vm)
    if remember:
        record = {"identity": identity, "name": found.name, "reason": found.reason}
        cache.write_atomically(path, json.dumps(record) + "\n")
    return found


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def _probe_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="twinmod-") as name:
        yield Path(name)


def probe_kvm(tree: KernelTree, chroot: Chroot, vm: VmSpec) -> Accelerator:
    """Boot a real guest with KVM and return what came of it."""
    init = resources.render_template(
        "init.j2",
        {
            "probe": PROBE_MARK,
            "vm_modules": (),
            "environment": (),
            "source_time": 0,
            "counted": False,
        },
    )
    busybox = (chroot.root_dir / "usr/bin/busybox").read_bytes()
    folders = ("bin", "proc", "dev")
    with _probe_dir() as run_dir:
        (run_dir / "results").mkdir()
        (run_dir / "initramfs").write_bytes(
            initramfs.plan_archive(
                initramfs.Content(
                    folders=folders, files=(("bin/busybox", busybox), ("init", init.encode()))
                )
            )
        )
        binds = (
            Bind(source_path=run_dir, target_path=RUN),
            Bind(source_path=run_dir / "results", target_path=RESULTS, writable=True),
            Bind(source_path=tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
        )
        entered = sandbox.plan_enter(
            chroot, plan_qemu(vm, "kvm"), binds=binds, devices=("/dev/kvm",)
        )
        log_path = run_dir / "qemu.log"
        command = Command(
            argv=entered, purpose="KVM probe", timeout_s=PROBE_TIMEOUT_S, log_path=log_path
        )
        try:
            status: int | None = process.run_unchecked(command)[0]
        except BuildError:
            status = None
        output = log_path.read_text(errors="replace")
        return plan_accelerator(read_console(run_dir), output, status)


def plan_accelerator(console: str, qemu_output: str, status: int | None) -> Accelerator:
    """Return what a VM runs on, from what came of a guest that was booted with KVM.

    Args:
        console: What its kernel said.
        qemu_output: What QEMU said.
        status: QEMU's exit status, None when it had to be ended.
    """
    if PROBE_MARK in console:
        warned = find_words(console) if faults.parse_faults(console) else ""
        reason = f"a guest booted with it, and {warned}" if warned else "a guest booted with it"
        return Accelerator(name="kvm", reason=reason)
    how = (
        f"it did not reach its first program within {PROBE_TIMEOUT_S:.0f} s"
        if status is None
        # -no-reboot: QEMU ends as if all were well.
        else "the guest reset itself or powered off, as after a triple fault"
        if status == 0
        else f"QEMU ended with status {status}"
    )
    said = [line.strip() for line in qemu_output.splitlines() if line.strip()][-QEMU_WORDS:]
    words = find_words(console) or "the guest said nothing"
    why = "; ".join((how, *(f"QEMU said: {line}" for line in said), words))
    return Accelerator(name="tcg", reason=f"/dev/kvm opens, but no guest boots with it: {why}")


def find_words(console: str) -> str:
    """Return what a kernel said that did not come far: its faults, or its last line, or ""."""
    lines = [line.text for line in map(faults.parse_line, console.splitlines()) if line.text]
    told = [fault.lines[0] for fault in faults.parse_faults(console)[:1]]
    # What follows a warning may have ended it for another reason.
    told += [line for line in lines if line.startswith("Kernel panic - not syncing: ")][:1]
    if told:
        return f"its kernel said: {'; '.join(dict.fromkeys(told))}"
    return f"the last line of its console is: {make_visible(lines[-1])}" if lines else ""


def check_vm(accelerator: Accelerator) -> tuple[Check, ...]:
    """Return what the doctor says of the VM."""
    return (
        Check(
            group="VM",
            name="accelerator",
            needed="kvm or tcg",
            ok=True,
            found=f"{accelerator.name} ({accelerator.reason})",
        ),
    )

# SPDX-License-Identifier: GPL-2.0-only
"""A VM that runs: what it says, and what it is asked."""

import binascii
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO

from twinmod.base import cache, commands, process
from twinmod.base.progress import Progress
from twinmod.cells import outcomes, transcript
from twinmod.cells.model import DifferentialCell, TestResult
from twinmod.cells.transcript import End
from twinmod.errors import VmLostError
from twinmod.guest import faults, protocol, visible
from twinmod.guest.protocol import (
    Answered,
    CellBegan,
    CellEnded,
    Ended,
    Event,
    FigureTaken,
    FileWritten,
    Outcome,
    PlugAsked,
    Plugged,
    Ready,
    Request,
    TestEnded,
    TurnsTaken,
)
from twinmod.vm import boot as vm_boot
from twinmod.vm import console as vm_console
from twinmod.vm import devices, machine, monitor
from twinmod.vm.boot import BootPlan

#: After its last event, or after the host gave up.
POWER_OFF_TIMEOUT_S = 10.0

#: What a file may be called that a VM sends, and the files there that are the host's.
FILE_NAME = re.compile(r"\w[\w.-]*")
OWN_FILES = ("console.log", "plan.json", machine.MONITOR)

#: How long a clone may take to read what it is given: some megabytes.
DELIVERY_TIMEOUT_S = 30.0


#: How many boots of one run may stall: QEMU's translation was seen to do so, once in many boots,
#: on a host with more to do than it has processors.
STALLED_BOOTS = 2


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

    transcript: transcript.Transcript
    end: End
    console: str
    # What QEMU itself had to say.
    qemu_log: str
    # Why the host ended a clone before it had anything to do.
    refusal: str = ""
    # The console's lines that a program wrote and that look like the begin of a splat.
    by_programs: tuple[str, ...] = ()
    # (title, seconds) of what it spent its time on.
    phases: tuple[tuple[str, float], ...] = ()


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
        # What it is once the VM is gone.
        self.end = End.EXITED
        # None: QEMU is told nothing once it runs, or it was gone before it listened.
        self.monitor: monitor.Monitor | None = None
        # Why the host ended it before it had anything to do.
        self.refusal = ""
        self._qemu = qemu
        self._kept = kept
        self._watch = watch
        # Whether it powers itself off, and whether a cell of its was ended for taking too long.
        self._finished = self._hung = False
        self._deadline = time.monotonic() + plan.command.timeout_s
        self._source = process.read_lines(qemu, self._find_patience)

    def read_event(self) -> Event | None:
        """Return what it says next; None: it says nothing any more."""
        try:
            for line in self._source:
                events = transcript.parse_events((line,))
                if events and isinstance(events[0], FileWritten):
                    self._write(events[0])
                    continue
                # Answers are for whoever asked, and in a soak there are millions.
                if not (events and isinstance(events[0], Answered)):
                    self._keep(line)
                if events and isinstance(events[0], PlugAsked):
                    self._plug(events[0])
                    continue
                for event in events:
                    self._take_note(event)
                    return event
        except TimeoutError:
            self.end = End.SILENT
        return None

    def _find_patience(self) -> float:
        """Return how long the next line may take: the first one takes a boot."""
        limit_s = self.plan.silence_timeout_s if self.lines else self.plan.boot_timeout_s
        if self._finished:
            limit_s = POWER_OFF_TIMEOUT_S
        return min(limit_s, self._deadline - time.monotonic())

    def _take_note(self, event: Event) -> None:
        match event:
            case CellEnded():
                self._hung = event.outcome == Outcome.TIMEOUT
            case Ended():
                self._finished = True
                # What hangs in the kernel can keep it from powering off, and all is said.
                if self._hung:
                    self.kill()

    def _keep(self, line: str) -> None:
        self.lines.append(line)
        self._kept.write(line + "\n")
        self._kept.flush()
        self._watch(line)

    def _write(self, file: FileWritten) -> None:
        """Keep a file where a VM that shares the folder writes it itself.

        Raises:
            VmLostError: It has no such name, or no such content.
        """
        path = self.plan.vm_dir / "results" / file.name
        if not FILE_NAME.fullmatch(file.name) or file.name in OWN_FILES:
            raise VmLostError("the VM's agent sent a file of no name", facts=(("name", file.name),))
        try:
            path.write_bytes(b64decode(file.content, validate=True))
        except binascii.Error as error:
            raise VmLostError(
                "the VM's agent sent a file that is not whole", facts=(("file", file.name),)
            ) from error

    def _plug(self, asked: PlugAsked) -> None:
        """Take a device out, or plug it in again, and say what came of it."""
        problem = f"the VM has no device number {asked.number}"
        if self.monitor is None:
            problem = "the host does not tell QEMU what to do with this VM"
        elif 0 <= asked.number < len(self.plan.devices):
            problem = devices.change(
                self.monitor, self.plan.devices, asked.number, plugged=asked.plugged
            )
        process.send_line(self._qemu, protocol.render_reply(Plugged(problem=problem)))

    def ask(self, request: Request) -> Answered:
        """Return the answer to a request, while the VM is ready for one.

        Raises:
            VmGoneError: It ended, fell silent, or ended the cell, and did not answer.
        """
        self.say(request)
        while (event := self.read_event()) is not None and not isinstance(event, CellEnded):
            if isinstance(event, Answered):
                return event
        raise VmGoneError

    def say(self, request: Request | None) -> None:
        """Send a request, or None after the last one; nothing happens when the VM is gone."""
        process.send_line(self._qemu, protocol.render_request(request))

    def kill(self) -> None:
        """End it at once."""
        process.kill_group(self._qemu)

    def wait_for_end(self) -> None:
        """Wait until it is gone, after it said its last word."""
        while self.read_event() is not None:
            pass
        try:
            process.wait_for_end(self._qemu, POWER_OFF_TIMEOUT_S)
        except TimeoutError:
            self.end = End.SILENT


class VmGoneError(Exception):
    """A VM did not answer: whoever asked knows what that means."""


@contextmanager
def run_vm(plan: BootPlan, watch: Callable[[str], None]) -> Iterator[Vm]:
    """Run a VM that lives no longer than the context, which waits for it to end by itself."""
    with (
        vm_boot.write_vm_dir(plan),
        (plan.vm_dir / "qemu.log").open("wb") as log,
        (plan.vm_dir / "events.jsonl").open("w", encoding="utf-8") as kept,
        cache.share(plan.origin) if plan.origin else nullcontext(),
        monitor.listen(plan.vm_dir / "results") if plan.monitored else nullcontext() as listener,
        process.start(plan.command, stdin=process.PIPE, stderr=log) as qemu,
        monitor.accept(listener, qemu) if listener else nullcontext() as found,
    ):
        vm = Vm(plan, qemu, kept, watch)
        vm.monitor = found
        if found and plan.restored:
            vm.refusal = resume(plan, found, qemu)
        yield vm
        vm.wait_for_end()


def resume(plan: BootPlan, qemu_monitor: monitor.Monitor, qemu: process.Process) -> str:
    """Let a clone go on, and give it its devices and what it is to do.

    Returns:
        Why it was ended instead; "" when it was not.
    """
    try:
        monitor.restore(qemu_monitor, plan.restored)
        devices.plug(qemu_monitor, plan.devices)
    except monitor.QemuEndedError:
        return ""
    except VmLostError as error:
        process.kill_group(qemu)
        return error.message
    if plan.delivery is not None:
        with process.Limit(DELIVERY_TIMEOUT_S, qemu):
            process.send_line(qemu, protocol.render_delivery(plan.delivery))
    return ""


@contextmanager
def serve(plan: BootPlan, watch: Callable[[str], None]) -> Iterator[Vm]:
    """Run a VM for requests alone; it is ready when the context is entered.

    Raises:
        VmLostError: It did not come so far.
    """
    with run_vm(plan, watch) as vm:
        while (event := vm.read_event()) is not None and not isinstance(event, Ready):
            pass
        if event is None:
            raise plan_boot_error(plan, read_end(vm))
        yield vm
        vm.say(None)


def read_end(vm: Vm) -> VmEnd:
    """Return how a VM ended that is gone, and what it did of the cells that it was given."""
    vm_dir = vm.plan.vm_dir
    console = vm_console.read_console(vm_dir)
    events = transcript.parse_events(vm.lines)
    return VmEnd(
        transcript=transcript.parse_transcript(events, vm.plan.cells),
        end=vm.end,
        console=console,
        qemu_log=(vm_dir / "qemu.log").read_text(errors="replace"),
        refusal=vm.refusal,
        by_programs=outcomes.parse_program_lines(events),
        phases=transcript.parse_phases(events),
    )


def boot(
    plan: BootPlan,
    watch: Callable[[str], None],
    converse: Callable[[Vm], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> VmEnd:
    """Boot a VM and read what it says until it is gone.

    Args:
        plan: The VM.
        watch: Called with every line that it says, as it comes.
        converse: Called when it is ready for requests; returns when it has no more.
        stopped: Called after every event; the VM is ended when it returns True.

    Returns:
        How it ended; it is gone, whatever happened.
    """
    with run_vm(plan, watch) as vm:
        while (event := vm.read_event()) is not None:
            if stopped():
                vm.kill()
            elif isinstance(event, Ready) and converse is not None:
                converse(vm)
                vm.say(None)
    return read_end(vm)


def ignore(cell: str, test: TestResult) -> None:
    """Say nothing of a test that did not pass."""
    del cell, test


class Watch:
    """Shows, while a VM runs, which cell it is in and how many tests or figures are done.

    Args:
        progress: Where.
        told: Called with the name of a cell and each test of it that did not pass.
    """

    def __init__(
        self, progress: Progress, told: Callable[[str, TestResult], None] = ignore
    ) -> None:
        self.progress = progress
        self.told = told
        self.cell = "boot"
        self.done = 0

    def __call__(self, line: str) -> None:
        """Take note of one line of the VM."""
        for event in transcript.parse_events((line,)):
            if isinstance(event, CellBegan):
                self.cell, self.done = event.cell, 0
            elif isinstance(event, TestEnded | FigureTaken | TurnsTaken):
                self.done += 1
            if isinstance(event, TestEnded) and event.outcome not in outcomes.GOOD:
                self.told(self.cell, transcript.read_test(event))
        # The differential says for itself how far it is.
        if self.cell != DifferentialCell.name:
            self.progress.detail(f"{self.cell}, {self.done} done")


def render_unreached(end: VmEnd) -> str:
    """Return why a VM's cells have no result: how it ended, and what was said last."""
    if end.refusal:
        return f"the clone did not go on: {end.refusal}"
    why = "fell silent" if end.end == End.SILENT else "ended"
    return f"the VM {why} before its first cell; {find_last_words(end)}"


def find_last_words(end: VmEnd) -> str:
    """Return what the kernel of a VM said that did not come far, or else what QEMU did."""
    lines = end.qemu_log.splitlines()
    last = f"QEMU said: {visible.make_visible(lines[-1])}" if lines else "it said nothing"
    return vm_console.find_words(end.console) or last


def is_stalled(end: VmEnd) -> bool:
    """Tell whether a VM fell silent before its agent began, and its kernel said no fault.

    No module of ours was there yet: it says nothing of them, and it is counted.
    """
    unheard = end.end == End.SILENT and not end.transcript.booted
    return unheard and not faults.parse_faults(end.console)


def render_stall(plan: BootPlan, end: VmEnd) -> str:
    """Return what is said of a boot that stalled, and is tried once more."""
    words = find_last_words(end)
    return f"the VM did not boot within {plan.boot_timeout_s:.0f} s, {words}; once more"


def plan_boot_error(plan: BootPlan, end: VmEnd) -> VmLostError:
    """Return the error of a VM that did not come as far as a cell."""
    tail = process.render_tail(end.console, plan.command.tail_lines)
    return VmLostError(
        render_unreached(end),
        facts=(
            ("command", process.render_command(plan.command)),
            ("QEMU", process.render_tail(end.qemu_log, plan.command.tail_lines) or "(nothing)"),
            ("console", "(its last lines)\n" + tail if tail else "(nothing)"),
            ("folder", str(plan.vm_dir)),
        ),
        hint=commands.render("doctor"),
    )

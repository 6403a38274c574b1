# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's log becomes faults: what no driver may cause. Pure, and the VM's agent uses it too.

Source: every "BUG: ", "WARNING: ", "INFO: " and "Oops: " of kernel/, mm/, lib/ and arch/x86/, with
mm/kmemleak.c, lib/kobject.c, kernel/irq/spurious.c and arch/arm64/{kernel/traps,mm/fault}.c, Linux
6.12, 7.2 and 7.3; kernel/printk/printk.c for the stamps.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from twinmod.guest import visible


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One entry of a stack that the kernel told of."""

    # As the kernel wrote it: Rust's are mangled.
    function: str
    offset: int
    size: int
    # "" is the kernel itself.
    module: str
    # True: that instruction; False: the one after a call.
    exact: bool = False
    # Once it is decoded: the name as a person knows it, and FILE:LINE.
    name: str = ""
    place: str = ""

    @property
    def shown(self) -> str:
        """What a person is shown of its function."""
        return self.name or self.function


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where something happened: the innermost call first."""

    # "at", "allocated", "freed", "took LOCK", "write of 8 bytes", ...
    label: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFault:
    """Something the kernel said that no driver may cause."""

    # oops, panic, bug, warning, ...
    kind: str
    # The first lines of its splat that say something to a person.
    lines: tuple[str, ...]
    # Seconds of the kernel's own clock, None where its log has no time stamps.
    at_s: float | None = None
    stacks: tuple[Stack, ...] = ()
    # The modules that its splat names; none: the kernel's own code.
    modules: tuple[str, ...] = ()
    # The test that ran, "" between tests.
    test: str = ""
    # The console that has all of it, as a person would open it.
    log: str = ""


#: An address as the kernel prints it with %pS: a symbol, or a number where it knows none.
_ADDRESS = r"(?:\S+\+0x[0-9a-f]+/0x[0-9a-f]+|0x[0-9a-f]+)"

#: What die() says of a fault; older kernels say it without "Oops: " before it.
_TRAPS = (
    "(?:segment-related )?general protection fault|stack segment|invalid opcode|divide error"
    "|double fault|int3|bounds|overflow|invalid TSS|segment not present|Bad pagetable"
    "|coprocessor segment overrun|stack guard page|control protection fault"
)

#: How the first line of a splat of the kernel begins, by the kind of its fault. A pattern holds
#: all that the kernel's format string has there: a driver that logs "WARNING: low on memory" has
#: reported nothing.
_FIRST_LINES = {
    "panic": ("Kernel panic - not syncing: ", "PANIC: early exception 0x"),
    "kasan": ("BUG: KASAN: .+ in ", "BUG: KASAN: invalid-access"),
    "kcsan": ("BUG: KCSAN: .+ in ",),
    "kfence": ("BUG: KFENCE: .+ in ",),
    "kmsan": ("BUG: KMSAN: .+ in ",),
    "ubsan": (r"UBSAN: .+ in .+:\d+", "traps: UBSAN: .+ at "),
    "soft lockup": (r"(?:(?:NMI )?watchdog: )?BUG: soft lockup - CPU#\d+ stuck for \d+s!",),
    "hard lockup": (r"(?:NMI )?watchdog: (?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu \d",),
    "atomic sleep": (
        "BUG: scheduling while atomic: ",
        "BUG: scheduling in a non-blocking section: ",
        "BUG: sleeping function called from invalid context at ",
    ),
    "oops": (
        "BUG: kernel NULL pointer dereference",
        "BUG: unable to handle (?:page fault|kernel)",
        "BUG: .+ stack guard page was hit at ",
        "BUG: invalid or fatal FRED event; ",
        r"Oops: .+: [0-9a-f]{4} \[#\d+\]",
        "Oops: Split lock detected",
        rf"(?:{_TRAPS}).*: [0-9a-f]{{4}} \[#\d+\]",
        "traps: PANIC: double fault, ",
        r"Internal error: .+ \[#\d+\]",
        "Unable to handle kernel .+ at virtual address ",
    ),
    "lockdep": (
        "WARNING: possible circular locking dependency detected",
        "WARNING: possible recursive locking detected",
        "WARNING: possible irq lock inversion dependency detected",
        "WARNING: inconsistent lock state",
        "WARNING: .+-safe -> .+-unsafe lock order detected",
        "WARNING: bad (?:unlock balance|contention) detected!",
        "WARNING: Nested lock was not taken",
        "WARNING: held lock freed!",
        r"WARNING: .+/\d+ still has locks held!",
        "WARNING: lock held when returning to user space!",
        "WARNING: suspicious RCU usage",
        "WARNING: chain_key collision",
        r"\[ BUG: Invalid wait context \]",
        r"INFO: trying to register non-static key\.",
        r"BUG: key \S+ has not been registered!",
        r"BUG: looking up invalid subclass: \d",
        r"BUG: MAX_\w+ too low!",
    ),
    "bug": (
        r"kernel BUG at (?:.+:\d+!|.+ \[verbose debug info unavailable\])",
        r"BUG: failure at .+:\d+/",
        r"BUG: Bad page (?:state|map|cache)(?: in process |: \d+ messages suppressed)",
        "BUG: Bad rss-counter state mm:",
        "BUG: non-zero pgtables_bytes on freeing mm: ",
        "BUG: assuming (?:atomic|non migratable) context at ",
        r"BUG: using \S+\(\) in preemptible \[",
        r"BUG: (?:spin|rw)lock .+ on CPU#\d",
        "BUG: workqueue (?:leaked atomic, |lockup - pool)",
        "BUG: mempool element poison mismatch",
        "BUG: arch topology borken",
        "BUG: not (?:creating|updating) mapping for ",
        "BUG: Bad current_user_events",
        "BUG: Auto-delete engaged on persistent event",
        "pagealloc: (?:memory corruption|single bit error)",
        r"softirq: huh, entered softirq \d",
    ),
    # SLUB names the cache: "BUG kmalloc-64 (Tainted: G): Right Redzone overwritten".
    "slub": (r"BUG .+ \((?:Not tainted|Tainted: [^)]*)\): ",),
    "warning": (
        rf"WARNING: (?:.+:\d+ )?at {_ADDRESS}",
        # 6.12 names the processor first.
        r"WARNING: CPU: \d+ PID: \d+ at ",
        "WARNING: kernel stack (?:regs|frame pointer) at ",
        r"WARNING: stack recursion on stack type \d",
        "WARNING: WARNING: (?:bad lookup|Bad or missing|Corrupt)",
        "WARNING: Flushing system-wide workqueues will be prohibited",
        "kobject: kobject .+: tried to (?:init an initialized|add an uninitialized) object, ",
        r"irq \d+: nobody cared ",
        r"irq event \d+: bogus return value ",
    ),
    # "in I/O wait" since 7.1.
    "hung task": (r"INFO: task .+:\d+ blocked(?: in I/O wait)? for more than \d+ seconds\.",),
    "rcu stall": (
        r"(?:rcu: )?INFO: rcu_\w+ self-detected stall on CPU",
        r"(?:rcu: )?INFO: rcu_\w+ detected (?:expedited )?stalls?(?: on |, but suppressed |\? )",
    ),
    # As the agent copies it from debugfs, and as kmemleak.verbose=1 has it.
    "kmemleak": (r"(?:kmemleak: )?unreferenced object (?:\((?:phys|percpu)\) )?0x",),
}

#: Each kind of fault with the pattern of its first lines, which has to match at a line's begin.
FAULTS = tuple((kind, re.compile("|".join(begins))) for kind, begins in _FIRST_LINES.items())

#: The kernel's words when the agent itself ended: the VM is lost, no driver is at fault.
AGENT_DIED = "Attempted to kill init"

#: Lines of a fault that a person is shown.
FAULT_LINES = 12

#: How many lines a splat may have, by kind, when nothing says where it ends.
REACH = {"lockdep": 250, "kmemleak": 40}
DEFAULT_REACH = 60

#: What ends a splat, by kind. Of lockdep's many traces the last one ends it.
_END_TRACE = re.compile(r"^---\[ end trace ")
_RULER = re.compile(r"^={20,}$")
_ENDS = {
    **dict.fromkeys(("kasan", "kcsan", "kfence", "kmsan"), _RULER),
    "ubsan": re.compile(r"^---\[ end trace |^={20,}$"),
}
_LAST_TRACE = re.compile(r"^stack backtrace:|^hardirqs last")

#: What stands in every fault's splat and tells a person nothing: registers, code bytes, hardware,
#: guessed stack entries, rulers.
_NOISE = re.compile(
    r"^(?:R[A-Z0-9]{2}: [0-9a-f]{16}|RSP: |RIP: 0033:|Code: |[CDEFGS]{2}: |[CD]R\d: |PKRU: "
    r"|Tainted: |\[[A-Z]\]=|Hardware name: |Modules linked in: |Call Trace:|</?TASK>|\? |-+\["
    r"|={20,}$|-{20,}$)"
)

#: What Rust's panic handler says before the BUG that it ends in.
_PANIC = re.compile(r"^rust_kernel: panicked at ")

#: What a kernel puts before a line: the time, and who said it, as far as it was built to.
_STAMP = re.compile(
    r"^(?:<\d+>)?(?:\[ *(\d+\.\d+)\](?:\[ *([TC]\d+)\]|\[[^]]*\])?|\[ *([TC]\d+)\]) ?"
)

#: A stamp after the words of a program, which did not end its line on the console.
_LATE_STAMP = re.compile(r"\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ")

#: ``name+0x12/0x40 [module]``; a module's build-id may follow its name.
_FRAME = re.compile(
    r"^(?:\[<[0-9a-f]+>\] )?(?P<function>[\w.$]+)\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)"
    r"(?: \[(?P<module>\w+)[^]]*\])?(?: .*)?$"
)
_RIP = re.compile(r"^RIP: 0010:(.*)$")
_IN_TITLE = re.compile(r"\[(\w+)(?: [0-9a-f]+)?\]")

#: What begins a stack, with what a person would call it.
_LABELS = (
    (re.compile(r"^[Aa]llocated by task|^Uninit was created at:"), "allocated"),
    (re.compile(r"^[Ff]reed by task"), "freed"),
    (re.compile(r"^Uninit was stored to memory at:"), "stored"),
    (re.compile(r"^backtrace \("), "allocated"),
    (re.compile(r"^-> #\d+ \(([^)]*)\)"), "took {}"),
    (re.compile(r"^((?:read|write|read-write)(?: \(\w+\))?) to 0x\S+ of (\d+ bytes)"), "{} of {}"),
    (re.compile(r"^(?:Call Trace:|stack backtrace:)"), "at"),
    (re.compile(r"^Last potentially related work"), "work"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a kernel's log."""

    text: str
    at_s: float | None
    # The task or processor that said it, as in "T123" or "C1"; "" where the log does not say.
    speaker: str


def parse_line(text: str) -> Line:
    """Return a line of a console or of a log, without its stamp and what stands before it."""
    stamp = _STAMP.match(text)
    late = None if stamp else _LATE_STAMP.search(text)
    if late:
        text = text[late.start() :]
        stamp = _STAMP.match(text)
    if stamp is None:
        return Line(text=text.rstrip(), at_s=None, speaker="")
    at, speaker, speaker_alone = stamp.groups()
    return Line(
        text=text[stamp.end() :].rstrip(),
        at_s=float(at) if at else None,
        speaker=speaker or speaker_alone or "",
    )


def find_kind(text: str) -> str:
    """Return the kind of the fault whose splat begins with a line, "" for any other line.

    Args:
        text: Without its stamp.
    """
    if AGENT_DIED in text:
        return ""
    return next((kind for kind, pattern in FAULTS if pattern.match(text)), "")


def parse_faults(console: str, by_programs: Iterable[str] = ()) -> tuple[KernelFault, ...]:
    """Return the faults that a kernel's log reports.

    Args:
        console: The log, with or without time stamps, whole or cut.
        by_programs: Lines of it, with their stamps, that a program wrote to /dev/kmsg.

    Returns:
        One fault for each splat, in the order in which they begin. Splats of two processors
        that come line by line in turn are told apart where the log says who spoke. In a log with
        time stamps a line without one is not the kernel's, and begins no splat.
    """
    lines = [parse_line(text) for text in console.splitlines()]
    stamped = any(line.at_s is not None for line in lines)
    others = {parse_line(text) for text in by_programs}
    found: list[KernelFault] = []
    claimed: set[int] = set()
    for number, line in enumerate(lines):
        if number in claimed or line in others or (stamped and line.at_s is None):
            continue
        kind = find_kind(line.text)
        # An oops is followed by its own "Oops:", its warning, and the panic that ends the VM.
        if not kind or (kind == "panic" and found):
            continue
        numbers = tuple(_iterate_splat(lines, number, kind))
        claimed.update(numbers)
        fault = plan_fault(kind, tuple(lines[index] for index in numbers))
        if not any(_is_same_leak(fault, other) for other in found):
            found.append(fault)
    return tuple(found)


def _iterate_splat(lines: list[Line], first: int, kind: str) -> Iterator[int]:
    """Yield the numbers of a splat's lines, a Rust panic's own words first."""
    speaker = lines[first].speaker
    mine = [i for i in range(max(0, first - 20), first) if lines[i].speaker == speaker][-5:]
    start = next((i for i in mine if _PANIC.match(lines[i].text)), first)
    yield from (i for i in mine if i >= start)
    reach, last_trace = REACH.get(kind, DEFAULT_REACH), kind != "lockdep"
    count = 0
    for number in range(first, len(lines)):
        line = lines[number]
        if line.speaker != speaker:
            continue
        if number > first and kind == "kmemleak" and find_kind(line.text):
            return
        yield number
        count += 1
        text = line.text.strip()
        last_trace = last_trace or bool(_LAST_TRACE.match(text))
        end = _ENDS.get(kind, _END_TRACE)
        over = number > first and (end.match(text) or _END_TRACE.match(text))
        if over or (text == "</TASK>" and last_trace and kind in ("lockdep", "atomic sleep")):
            return
        if count > reach:
            return


def _is_same_leak(fault: KernelFault, other: KernelFault) -> bool:
    return fault.kind == other.kind == "kmemleak" and fault.stacks == other.stacks


def plan_fault(kind: str, lines: tuple[Line, ...]) -> KernelFault:
    """Return the fault that a splat's lines tell of."""
    told = [visible.make_visible(line.text.strip()) for line in lines]
    stacks = parse_stacks(told)
    named = [name for text in told[:3] for name in _IN_TITLE.findall(text)]
    named += [frame.module for stack in stacks for frame in stack.frames if frame.module]
    shown = tuple(text for text in told if text and not _NOISE.match(text))
    return KernelFault(
        kind=kind,
        lines=shown[:FAULT_LINES],
        at_s=lines[0].at_s,
        stacks=stacks,
        modules=tuple(dict.fromkeys(named)),
    )


def parse_stacks(lines: list[str]) -> tuple[Stack, ...]:
    """Return the stacks of a splat, guessed entries left out.

    Args:
        lines: Without stamps and indents.
    """
    label = "at"
    stacks: list[Stack] = []
    for text in lines:
        named = _find_label(text)
        if named:
            label = named
            # "Call Trace:" after RIP goes on with the stack that RIP began.
            if not (stacks and label == stacks[-1].label == "at"):
                stacks.append(Stack(label=label, frames=()))
            continue
        rip = _RIP.match(text)
        frame = parse_frame(rip.group(1) if rip else text)
        if frame is None:
            continue
        frame = replace(frame, exact=bool(rip))
        if not stacks:
            stacks.append(Stack(label=label, frames=()))
        stacks[-1] = replace(stacks[-1], frames=(*stacks[-1].frames, frame))
    return tuple(stack for stack in stacks if stack.frames)


def _find_label(text: str) -> str:
    for pattern, label in _LABELS:
        match = pattern.match(text)
        if match:
            return label.format(*match.groups())
    return ""


def parse_frame(text: str) -> Frame | None:
    """Return a stack's entry, None for a line that is none."""
    match = _FRAME.match(text)
    if match is None:
        return None
    return Frame(
        function=match["function"],
        offset=int(match["offset"], 16),
        size=int(match["size"], 16),
        module=match["module"] or "",
    )


def is_foreign(fault: KernelFault, modules: tuple[str, ...]) -> bool:
    """Tell whether a splat names none of some modules."""
    return not set(fault.modules) & set(modules)


def is_tolerated(fault: KernelFault, modules: tuple[str, ...]) -> bool:
    """Tell whether a splat is no reason to end a cell: a data race of the kernel's own code.

    KCSAN in its strict mode tells of many, on every kernel.
    """
    return fault.kind == "kcsan" and is_foreign(fault, modules)


# -- for a person -----------------------------------------------------------------------------


def render_complaint(fault: KernelFault) -> str:
    """Return a fault as the problem of a cell that it ended."""
    return f"the kernel complained: {fault.lines[0]}"


def render_fault(fault: KernelFault, modules: tuple[str, ...]) -> tuple[str, ...]:
    """Return a fault in at most FAULT_LINES lines.

    Args:
        fault: With the places of its frames, as far as they are known.
        modules: Those under test.
    """
    told = [line for line in fault.lines if parse_frame(line) is None and not _RIP.match(line)]
    head, details = told[:1] or [fault.kind], told[1:3]
    lines = [f"{fault.kind}: {head[0]}"]
    lines += [f"  {line}" for line in details if not line.startswith(("CPU: ", "Oops: "))]
    if is_foreign(fault, modules):
        lines.append(f"  outside {' and '.join(modules) or 'every module under test'}")
    for stack in fault.stacks:
        lines += _render_stack(stack, modules)
    room = FAULT_LINES - 1
    return (*lines[:room], f"  log: {fault.log}")


def _render_stack(stack: Stack, modules: tuple[str, ...]) -> list[str]:
    """Return a stack's entries from the first one in a module under test on, or its first ones."""
    own = next((i for i, f in enumerate(stack.frames) if f.module in modules), None)
    if own is None:
        chosen, before = stack.frames[:2], ""
    else:
        chosen = tuple(f for f in stack.frames[own:] if f.module in modules)[:3]
        before = f"{stack.frames[own - 1].shown}, called from " if own else ""
    lines = []
    for number, frame in enumerate(chosen):
        place = f" ({frame.place})" if frame.place else ""
        label = f"{stack.label}: {before}" if number == 0 else " " * (len(stack.label) + 2)
        lines.append(f"  {label}{frame.shown}{place}")
    return lines

# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel's log tells of what no driver may cause. Pure, and the VM's agent uses it too.

Source: lib/dump_stack.c, mm/kasan/report.c, kernel/kcsan/report.c, lib/ubsan.c, mm/kmemleak.c,
kernel/locking/lockdep.c, kernel/panic.c, Linux 7.3.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from twinmod.specs import Frame, KernelFault, Stack

#: First lines of what no driver may cause, with its kind. The first that fits names a line.
FAULTS = (
    # It may name what it ends a report of.
    ("panic", re.compile(r"Kernel panic - not syncing")),
    ("bug", re.compile(r"kernel BUG at ")),
    ("kasan", re.compile(r"BUG: KASAN: ")),
    ("kcsan", re.compile(r"BUG: KCSAN: ")),
    ("ubsan", re.compile(r"UBSAN: ")),
    ("soft lockup", re.compile(r"BUG: soft lockup")),
    ("hard lockup", re.compile(r"Watchdog detected hard LOCKUP")),
    ("atomic sleep", re.compile(r"BUG: (?:scheduling while atomic|sleeping function called)")),
    ("oops", re.compile(r"BUG: (?:kernel NULL pointer|unable to handle)|\bOops: ")),
    ("oops", re.compile(r"general protection fault|stack segment:")),
    (
        "lockdep",
        re.compile(
            r"WARNING: (?:possible (?:circular|recursive) locking|inconsistent lock state"
            r"|possible irq lock inversion|bad unlock balance|held lock freed"
            r"|lock held when returning to user space|suspicious RCU usage"
            r"|nested lock was not taken|.* still has locks held|.*-safe -> .*-unsafe lock order)"
            r"|BUG: Invalid wait context|\[ BUG: Invalid wait context"
        ),
    ),
    ("bug", re.compile(r"\bBUG: ")),
    # SLUB names the cache: "BUG kmalloc-64 (Tainted: G): Right Redzone overwritten".
    ("slub", re.compile(r"^BUG [\w-]+ \(")),
    ("warning", re.compile(r"\bWARNING: ")),
    ("hung task", re.compile(r"INFO: task .* blocked for more than")),
    (
        "rcu stall",
        re.compile(r"rcu: INFO: .*(?:detected (?:expedited )?stalls|self-detected stall)"),
    ),
    # As the agent copies it from debugfs.
    ("kmemleak", re.compile(r"^unreferenced object 0x")),
)

#: The kernel's words when the agent itself ended: the VM is lost, no driver is at fault.
AGENT_DIED = "Attempted to kill init"

#: Lines of a fault that a person is shown.
FAULT_LINES = 12

#: How many lines a report may have, by kind, when nothing says where it ends.
REACH = {"lockdep": 250, "kmemleak": 40}
DEFAULT_REACH = 60

#: What ends a report, by kind. Of lockdep's many traces the last one ends it.
_END_TRACE = re.compile(r"^---\[ end trace ")
_RULER = re.compile(r"^={20,}$")
_ENDS = {"kasan": _RULER, "kcsan": _RULER, "ubsan": re.compile(r"^---\[ end trace |^={20,}$")}
_LAST_TRACE = re.compile(r"^stack backtrace:|^hardirqs last")

#: What stands in every fault's report and tells a person nothing: registers, code bytes, hardware,
#: guessed stack entries, rulers.
_NOISE = re.compile(
    r"^(?:R[A-Z0-9]{2}: [0-9a-f]{16}|RSP: |RIP: 0033:|Code: |[CDEFGS]{2}: |[CD]R\d: |PKRU: "
    r"|Tainted: |\[[A-Z]\]=|Hardware name: |Modules linked in: |Call Trace:|</?TASK>|\? |-+\["
    r"|={20,}$|-{20,}$)"
)

#: What Rust's panic handler says before the BUG that it ends in.
_PANIC = re.compile(r"^rust_kernel: panicked at ")

_STAMP = re.compile(r"^(?:<\d+>)?\[ *(\d+\.\d+)\](?:\[ *([TC]\d+)\]|\[[^]]*\])? ?")

#: ``name+0x12/0x40 [module]``; a module's build-id may follow its name.
_FRAME = re.compile(
    r"^(?:\[<[0-9a-f]+>\] )?(?P<function>[\w.$]+)\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)"
    r"(?: \[(?P<module>\w+)[^]]*\])?(?: .*)?$"
)
_RIP = re.compile(r"^RIP: 0010:(.*)$")
_IN_TITLE = re.compile(r"\[(\w+)(?: [0-9a-f]+)?\]")

#: What begins a stack, with what a person would call it.
_LABELS = (
    (re.compile(r"^Allocated by task"), "allocated"),
    (re.compile(r"^Freed by task"), "freed"),
    (re.compile(r"^backtrace \("), "allocated"),
    (re.compile(r"^-> #\d+ \(([^)]*)\)"), "took {}"),
    (re.compile(r"^((?:read|write|read-write)(?: \(\w+\))?) to 0x\S+ of (\d+ bytes)"), "{} of {}"),
    (re.compile(r"^(?:Call Trace:|stack backtrace:)"), "at"),
    (re.compile(r"^Last potentially related work"), "work"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a kernel's log."""

    text: str
    at_s: float | None
    # The task or processor that said it, as in "T123" or "C1"; "" where the log does not say.
    speaker: str


def parse_line(text: str) -> Line:
    """Return a line of a console or of a log, without its stamp."""
    stamp = _STAMP.match(text)
    return Line(
        text=_STAMP.sub("", text.rstrip()), at_s=float(stamp.group(1)) if stamp else None,
        speaker=(stamp.group(2) or "") if stamp else "",
    )  # fmt: skip


def find_kind(text: str) -> str:
    """Return the kind of the fault whose report begins with a line, "" for any other line."""
    if AGENT_DIED in text:
        return ""
    return next((kind for kind, pattern in FAULTS if pattern.search(text)), "")


def parse_faults(console: str) -> tuple[KernelFault, ...]:
    """Return the faults that a kernel's log tells of.

    Args:
        console: The log, with or without time stamps, whole or cut.

    Returns:
        One fault for each report, in the order in which they begin. Reports of two processors
        that come line by line in turn are told apart where the log says who spoke.
    """
    lines = [parse_line(text) for text in console.splitlines()]
    found: list[KernelFault] = []
    claimed: set[int] = set()
    for number, line in enumerate(lines):
        kind = "" if number in claimed else find_kind(line.text)
        # An oops is followed by its own "Oops:", its warning, and the panic that ends the VM.
        if not kind or (kind == "panic" and found):
            continue
        numbers = tuple(_iterate_report(lines, number, kind))
        claimed.update(numbers)
        fault = plan_fault(kind, tuple(lines[index] for index in numbers))
        if not any(_is_same_leak(fault, other) for other in found):
            found.append(fault)
    return tuple(found)


def _iterate_report(lines: list[Line], first: int, kind: str) -> Iterator[int]:
    """Yield the numbers of a report's lines, a Rust panic's own words first."""
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
    """Return the fault that a report's lines tell of."""
    told = [line.text.strip() for line in lines]
    stacks = parse_stacks(told)
    named = [name for text in told[:3] for name in _IN_TITLE.findall(text)]
    named += [frame.module for stack in stacks for frame in stack.frames if frame.module]
    shown = tuple(text for text in told if text and not _NOISE.match(text))
    return KernelFault(
        kind=kind, lines=shown[:FAULT_LINES], at_s=lines[0].at_s, stacks=stacks,
        modules=tuple(dict.fromkeys(named)),
    )  # fmt: skip


def parse_stacks(lines: list[str]) -> tuple[Stack, ...]:
    """Return the stacks of a report, guessed entries left out.

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
        function=match["function"], offset=int(match["offset"], 16), size=int(match["size"], 16),
        module=match["module"] or "",
    )  # fmt: skip


def is_foreign(fault: KernelFault, modules: tuple[str, ...]) -> bool:
    """Tell whether a report names none of some modules."""
    return not set(fault.modules) & set(modules)


def is_tolerated(fault: KernelFault, modules: tuple[str, ...]) -> bool:
    """Tell whether a report is no reason to end a cell: a data race of the kernel's own code.

    KCSAN in its strict mode tells of many, on every kernel.
    """
    return fault.kind == "kcsan" and is_foreign(fault, modules)


# -- for a person -----------------------------------------------------------------------------


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

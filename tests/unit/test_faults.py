# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's log becomes faults, on logs that our own VMs left."""

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod.guest import faults
from twinmod.guest.faults import Frame, KernelFault, Stack

DATA = Path(__file__).parent / "data"

LOGS = sorted(DATA.glob("*.log"))


def read_first_lines() -> list[tuple[str, str]]:
    """Return (line, kind) of first-lines.txt; "" is the kind of what begins no splat."""
    parts = [
        line.split("|", 1)
        for line in (DATA / "first-lines.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    return [(text.strip(), kind.strip().replace("none", "")) for kind, text in parts]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_captured_log_tells_of_just_these_faults(path: Path) -> None:
    wanted: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    found = faults.parse_faults(path.read_text(errors="replace"))
    assert [fault.kind for fault in found] == wanted["kinds"]
    for fault, text in zip(found, wanted.get("shown", []), strict=False):
        assert any(text in line for line in fault.lines), f"{text!r} is not shown"
        assert 0 < len(fault.lines) <= faults.FAULT_LINES
        assert not any(line.startswith("[") for line in fault.lines)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("BUG: KASAN: slab-out-of-bounds in mdriver_write+0x12/0x40 [mdriver_c]", "kasan"),
        ("BUG: KCSAN: data-race in mdriver_read / mdriver_write", "kcsan"),
        ("BUG: sleeping function called from invalid context at mm/usercopy.c:1", "atomic sleep"),
        ("BUG: Bad page state in process python3  pfn:1", "bug"),
        ("WARNING: possible circular locking dependency detected", "lockdep"),
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "rcu stall"),
        ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D }", "rcu stall"),
        ("stack segment: 0000 [#1] PREEMPT SMP", "oops"),
        ("Kernel panic - not syncing: hung_task: blocked tasks", "panic"),
    ],
)
@pytest.mark.parametrize(
    "stamp", ["", "[   12.345678] ", "<4>[   12.345678] ", "[ 1.2][  T123] ", "[  T123] "]
)
def test_other_faults_are_known_by_their_first_line(line: str, kind: str, stamp: str) -> None:
    (fault,) = faults.parse_faults(f"{stamp}mdriver_c: 4096 bytes\n{stamp}{line}\n")
    assert fault.kind == kind
    assert fault.lines == (line,)


@pytest.mark.parametrize(("line", "kind"), read_first_lines())
def test_what_the_kernel_prints_first_names_the_kind_and_nothing_else_does(
    line: str, kind: str
) -> None:
    assert faults.find_kind(line) == kind
    found = faults.parse_faults(f"[    1.000000] mdriver_c: hello\n[    2.000000][   T7] {line}\n")
    assert [(fault.kind, fault.lines) for fault in found] == ([(kind, (line,))] if kind else [])


def test_every_kind_has_a_first_line_that_is_known() -> None:
    assert {kind for _, kind in read_first_lines()} == {"", *(kind for kind, _ in faults.FAULTS)}


def test_a_splat_after_the_words_of_a_program_on_the_same_line_is_seen() -> None:
    (fault,) = faults.parse_faults("[    1.000000] x\n/ # [    2.500000] BUG: KASAN: x in f\n")
    assert (fault.lines, fault.at_s) == (("BUG: KASAN: x in f",), 2.5)


def test_what_a_program_wrote_to_the_log_is_no_splat() -> None:
    line = "[    2.500000][    T9] kernel BUG at x.c:1!"
    log = f"{line}\n[    3.500000][    T9] kernel BUG at x.c:2!\n"
    assert len(faults.parse_faults(line)) == 1
    (fault,) = faults.parse_faults(log, (line,))
    assert fault.lines == ("kernel BUG at x.c:2!",)


def test_a_splats_lines_are_visible() -> None:
    (fault,) = faults.parse_faults("kernel BUG at x.c:1!\nComm: \x1b[2J\x00\n")
    assert fault.lines[1] == r"Comm: \x1b[2J\x00"


def test_where_memory_that_kfence_watches_was_allocated_and_freed_is_told() -> None:
    (fault,) = faults.parse_faults(read("kfence"))
    assert [stack.label for stack in fault.stacks] == ["at", "allocated", "freed"]
    assert fault.modules == ("mdriver_c",)


def test_the_agents_own_death_is_no_drivers_fault() -> None:
    line = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"
    assert faults.parse_faults(line) == ()


def test_the_panic_that_ends_a_splat_is_not_another_fault() -> None:
    lines = ["WARNING: x.c:1 at f+0x1/0x2", *["text"] * 200, "Kernel panic - not syncing: x"]
    assert [fault.kind for fault in faults.parse_faults("\n".join(lines))] == ["warning"]


def test_a_fault_far_from_the_first_is_one_of_its_own() -> None:
    lines = ["WARNING: x.c:1 at f+0x1/0x2", *["text"] * 500, "BUG: KASAN: use-after-free in g"]
    assert [f.kind for f in faults.parse_faults("\n".join(lines))] == ["warning", "kasan"]


@given(st.lists(st.one_of(st.text(), st.sampled_from(read_first_lines()).map(itemgetter(0)))))
def test_whatever_a_console_shows_can_be_read(lines: list[str]) -> None:
    for fault in faults.parse_faults("\n".join(lines)):
        assert 0 < len(fault.lines) <= faults.FAULT_LINES


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", "rcu stall"),
        ("BUG kmalloc-64 (Tainted: G           OE      ): Right Redzone overwritten", "slub"),
        ("watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 0", "hard lockup"),
    ],
)
def test_a_fault_is_known_by_its_first_line(line: str, kind: str) -> None:
    assert [fault.kind for fault in faults.parse_faults(line)] == [kind]


def test_a_faults_time_is_read_from_the_log() -> None:
    (fault,) = faults.parse_faults("[    8.874437] kernel BUG at rust/helpers/bug.c:7!\n")
    assert fault.at_s == 8.874437


def read(name: str) -> str:
    return (DATA / f"{name}.log").read_text(errors="replace")


def test_where_it_happened_is_told_before_who_called() -> None:
    (fault,) = faults.parse_faults(read("oops-null"))
    (stack,) = fault.stacks
    assert stack.frames[0] == Frame(
        function="crasher_init", offset=0x32, size=0xFF0, module="crasher", exact=True
    )
    assert [frame.function for frame in stack.frames[1:3]] == ["do_one_initcall", "do_init_module"]
    assert fault.modules == ("crasher",)


def test_guessed_entries_of_a_stack_are_left_out() -> None:
    (fault,) = faults.parse_faults(read("oops-null"))
    assert not any(f.function.startswith("__pfx") for s in fault.stacks for f in s.frames)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_log_that_ends_anywhere_tells_of_no_other_fault(path: Path) -> None:
    lines = path.read_text(errors="replace").splitlines()
    wanted = json.loads(path.with_suffix(".json").read_text())["kinds"]
    for number, line in enumerate(lines):
        # Half of a first line may be all of another one.
        cut = (
            "" if faults.parse_faults(line) or faults.AGENT_DIED in line else line[: len(line) // 2]
        )
        kinds = [fault.kind for fault in faults.parse_faults("\n".join((*lines[:number], cut)))]
        assert kinds == wanted[: len(kinds)]


def stamp(text: str, speaker: str) -> list[str]:
    """Return a splat's lines as a processor said them, without their own stamps."""
    lines = [faults.parse_line(line).text for line in text.splitlines()]
    return [f"[   12.345678][ {speaker}] {line}" for line in lines]


def weave(first: list[str], second: list[str]) -> str:
    longest = max(len(first), len(second))
    pairs = (part[i : i + 1] for i in range(longest) for part in (first, second))
    return "\n".join(line for pair in pairs for line in pair)


def test_splats_of_two_processors_line_by_line_are_told_apart() -> None:
    one, two = stamp(read("oops-null"), "T11"), stamp(read("atomic-sleep"), "T12")
    alone = [faults.parse_faults("\n".join(lines))[0] for lines in (one, two)]
    woven = faults.parse_faults(weave(one, two))
    assert sorted(woven, key=lambda f: f.kind) == sorted(alone, key=lambda f: f.kind)


def plan_fault(*frames: Frame) -> KernelFault:
    stacks = (Stack(label="at", frames=frames),)
    modules = tuple(frame.module for frame in frames if frame.module)
    return KernelFault(
        kind="kasan", lines=("BUG: KASAN: x",), stacks=stacks, modules=modules, log="x/console.log"
    )


def plan_frame(function: str, module: str = "", place: str = "") -> Frame:
    return Frame(function=function, offset=1, size=2, module=module, place=place)


def test_a_fault_is_shown_where_it_came_from_in_the_module() -> None:
    fault = plan_fault(
        plan_frame("memcpy"),
        plan_frame("mdriver_read", "mdriver_c", "mdriver_c.c:7"),
        plan_frame("vfs_read"),
    )
    assert faults.render_fault(fault, ("mdriver_c",)) == (
        "kasan: BUG: KASAN: x",
        "  at: memcpy, called from mdriver_read (mdriver_c.c:7)",
        "  log: x/console.log",
    )


def test_a_fault_outside_the_modules_is_said_to_be_so() -> None:
    shown = faults.render_fault(plan_fault(plan_frame("vfs_read")), ("mdriver_c",))
    assert "  outside mdriver_c" in shown
    assert "  at: vfs_read" in shown


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_what_a_person_is_shown_is_twelve_lines_at_most(path: Path) -> None:
    for fault in faults.parse_faults(path.read_text(errors="replace")):
        assert 1 < len(faults.render_fault(fault, ("mdriver_c",))) <= 12


def test_leaks_from_one_place_are_one_fault() -> None:
    leak = [
        "unreferenced object 0xffff888006cb71e0 (size 64):",
        '  comm "insmod", pid 7, jiffies 1',
        "  backtrace (crc 6b0d):",
        "    kmalloc_noprof+0x1/0x2",
        "    probe+0x3/0x9 [mdriver_c]",
    ]
    (fault,) = faults.parse_faults("\n".join((*leak, *leak)))
    assert fault.kind == "kmemleak"
    assert fault.stacks[0].label == "allocated"
    assert fault.modules == ("mdriver_c",)


@pytest.mark.parametrize(
    ("kind", "module", "tolerated"),
    [
        ("kcsan", "", True),
        ("kcsan", "other", True),
        ("kcsan", "mdriver_c", False),
        ("kasan", "", False),
        ("lockdep", "", False),
    ],
)
def test_only_a_data_race_of_the_kernels_own_code_is_tolerated(
    kind: str, module: str, tolerated: bool
) -> None:
    fault = KernelFault(kind=kind, lines=("x",), modules=(module,) if module else ())
    assert faults.is_tolerated(fault, ("mdriver_c",)) is tolerated

# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's allocations and user copies fail, one after the other, in what this thread calls.

Source: Documentation/fault-injection/fault-injection.rst, Documentation/trace/kprobetrace.rst and
lib/fault-inject.c, Linux 7.3.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path

from twinmod.guest.leaks import DEBUGFS
from twinmod.guest.modules import Module

FAIL_NTH = Path("/proc/thread-self/fail-nth")
TRACING = Path("/sys/kernel/tracing")
RESULTS = Path("/results")

#: What can fail. An allocation that may wait, as nearly all of a driver may, and a single page,
#: fail only when it is said so.
KINDS = {
    "failslab": {"ignore-gfp-wait": "N"},
    "fail_page_alloc": {"ignore-gfp-wait": "N", "ignore-gfp-highmem": "N", "min-order": "0"},
    "fail_usercopy": {},
}

#: As deep as it is looked for a module's code. The kernel's own words are not wanted: it is silent
#: of an allocation with __GFP_NOWARN, and the console is slow.
COMMON = {"verbose": "0", "stacktrace-depth": "32"}

#: What tells of each failure, as an event of the kernel's tracing, with the name of each place in
#: the stack: taken when it fails, because a module that does not load is gone when it is read.
PROBE = "twinmod/failed"

#: Entries of a stack that are kept: an event follows no more pointers than that.
DEPTH = 8

#: Each kind, by the function that decides.
DECISIONS = {
    "should_failslab": "failslab",
    "should_fail_alloc_page": "fail_page_alloc",
    "should_fail_usercopy": "fail_usercopy",
}

#: The address space, for a path that no code of a module must be in.
EVERYWHERE = ("0", "0xffffffffffffffff")

#: A path that fails at more points than this does not come to an end.
MOST = 2000

#: How often a short path is walked. kmemleak does not see an object that leaked last, as long as
#: the stack of who lost it is not used again, and few of a handful; of one alone it saw nothing.
ROUNDS = 8

#: How often a walk of a long path must find nothing new, and by how much a point's number changes.
QUIET = 2
SHIFT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One point of a path that was made to fail, and what came of it."""

    path: str
    # It is the n-th allocation or copy of the path.
    nth: int
    # failslab, fail_page_alloc, fail_usercopy
    kind: str
    # 0: the call did without.
    errno: int
    # function+0xOFFSET/0xSIZE [module], the innermost first.
    stack: tuple[str, ...]


def is_possible() -> bool:
    """Return whether this kernel can make anything fail, and tell of it."""
    return FAIL_NTH.exists() and (TRACING / "kprobe_events").exists()


def find_code(module: Module) -> tuple[str, str]:
    """Return where a loaded module's code begins and ends, as the kernel wants it."""
    sections = sorted(
        int(path.read_text(), 16) for path in module.sysfs_path.glob("sections/.text*")
    )
    size = int((module.sysfs_path / "coresize").read_text())
    return hex(sections[0]), hex(sections[0] + size)


def prepare(code: tuple[str, str]) -> None:
    """Let everything of KINDS fail that code between two addresses asks for."""
    for kind, own in KINDS.items():
        start, end = code
        settings = {**COMMON, **own, "require-start": start, "require-end": end}
        for name, value in settings.items():
            (DEBUGFS / kind / name).write_text(value)
    events_dir = TRACING / "events" / PROBE
    if not events_dir.exists():
        (TRACING / "kprobe_events").write_text(plan_probe())
        (events_dir / "filter").write_text("failed == 1")
    (events_dir / "enable").write_text("1")


def plan_probe() -> str:
    """Return the kernel's definition of the event.

    A function that has returned has left its caller's frame in ``%bp``: where the address of the
    next frame is, and then the place that the caller returns to.
    """
    frames = (f"p{n}=+8({'+0(' * n}%bp{')' * n}):symstr" for n in range(DEPTH))
    return f"r:{PROBE} should_fail_ex failed=$retval:u8 {' '.join(frames)}\n"


def fail_at(nth: int, call: Callable[[], object]) -> tuple[bool, OSError | None, object]:
    """Call a function whose n-th allocation or copy fails.

    Returns:
        Whether it came so far, the error that it ended with, and what it returned.
    """
    error: OSError | None = None
    value: object = None
    # Two descriptors, opened before: to open one takes memory, and the file has no position to set.
    with FAIL_NTH.open("wb", buffering=0) as setting, FAIL_NTH.open("rb", buffering=0) as left:
        setting.write(b"%d" % nth)
        try:
            value = call()
        except OSError as caught:
            error = caught
        reached = _read_left(left) == 0
        _forget(setting)
    return reached, error, value


def _read_left(file: FileIO) -> int:
    """Return how many more are to pass; to read that is a copy, and may be the one that fails."""
    try:
        return int(file.read())
    except OSError:
        return 1


def _forget(file: FileIO) -> None:
    """Let nothing fail any more; to write that is a copy, and may be the one that fails."""
    try:
        file.write(b"0")
    except OSError:
        file.write(b"0")


def parse_event(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the kind of the first failure that the kernel's trace tells of, and its stack.

    Raises:
        AssertionError: It tells of none.
    """
    event = re.search(r" failed: \(([^ ]+) <- should_fail_ex\) (.*)", text)
    assert event, f"a failure that nothing tells of: {text}"
    # Nothing ends a text there, so it goes on with all that follow it.
    texts = (*re.findall(r'p\d+="([^"]*)"', event[2]), "")
    callers = (text.removesuffix(rest) for text, rest in pairwise(texts))
    stack = tuple(frame for frame in (event[1], *callers) if "+0x" in frame)
    functions = (frame.partition("+")[0].lstrip("_") for frame in stack)
    kind = next((DECISIONS[name] for name in functions if name in DECISIONS), "")
    assert kind, f"a failure of no kind that was asked for: {text}"
    return kind, stack


def iterate_failures(
    path: str,
    call: Callable[[], object],
    mark_step: Callable[[], object],
    *,
    first: int = 1,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[tuple[Failure, object]]:
    """Fail a path at its first point, at its second one, and so on to its last one.

    Args:
        path: Its name.
        call: Walks it.
        mark_step: Called after each point.
        first: The point to begin with.
        around: What holds while the path is walked.

    Yields:
        What failed and what the call returned, with nothing failing any more.

    Raises:
        AssertionError: The path has no end.
    """
    trace = TRACING / "trace"
    for nth in range(first, MOST):
        # To open it for writing empties it.
        trace.write_text("")
        with around():
            reached, error, value = fail_at(nth, call)
        if not reached:
            assert error is None, f"{path} fails by itself: {error}"
            return
        kind, stack = parse_event(trace.read_text())
        number = 0 if error is None else error.errno or 0
        yield Failure(path=path, nth=nth, kind=kind, errno=number, stack=stack), value
        mark_step()
    raise AssertionError(f"{path}: still fails at its point {MOST}")


def iterate_rounds(
    path: str,
    call: Callable[[], object],
    mark_step: Callable[[], object],
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[tuple[Failure, object]]:
    """Fail a short path ROUNDS times as iterate_failures() does."""
    for _ in range(ROUNDS):
        yield from iterate_failures(path, call, mark_step, around=around)


def iterate_thoroughly(
    path: str,
    call: Callable[[], object],
    mark_step: Callable[[], object],
    module: str,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[tuple[Failure, object]]:
    """Fail a long path as iterate_failures() does, and those of a module again.

    The kernel's caches are now full and now empty, so the same point has one number this time and
    another one next time, and a walk misses some. It is walked again, from shortly before the first
    point in the module's code, until QUIET walks have come to no new place of that code.
    """
    known: set[str] = set()
    begin, quiet, first = 0, 0, 1
    while quiet < QUIET:
        reached: set[str] = set()
        for failure, value in iterate_failures(path, call, mark_step, first=first, around=around):
            own = {frame for frame in failure.stack if f"[{module}]" in frame}
            if own and not begin:
                begin = max(1, failure.nth - SHIFT)
            reached |= own
            yield failure, value
        if not begin:
            return
        first, quiet = begin, 0 if reached - known else quiet + 1
        known |= reached


def keep(module: str, tester: str, failure: Failure) -> None:
    """Write a point that failed where the host finds it."""
    with (RESULTS / f"failures-{module}-{tester}.jsonl").open("a") as file:
        file.write(json.dumps(asdict(failure)) + "\n")

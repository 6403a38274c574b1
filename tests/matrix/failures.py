# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's allocations and user copies fail, one after the other, in what this thread calls.

Source: Documentation/fault-injection/fault-injection.rst and lib/fault-inject.c, Linux 7.3.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path

from kmod import KernelLog, Module, open_log

FAIL_NTH = Path("/proc/thread-self/fail-nth")
DEBUGFS = Path("/sys/kernel/debug")
RESULTS = Path("/results")

#: What can fail. An allocation that may wait, as nearly all of a driver may, and a single page,
#: fail only when it is said so.
KINDS = {
    "failslab": {"ignore-gfp-wait": "N"},
    "fail_page_alloc": {"ignore-gfp-wait": "N", "ignore-gfp-highmem": "N", "min-order": "0"},
    "fail_usercopy": {},
}

#: With a stack in the log for each, as deep as it is looked for a module's code.
COMMON = {"verbose": "2", "stacktrace-depth": "32"}

#: The address space, for a path that no code of a module must be in.
EVERYWHERE = ("0", "0xffffffffffffffff")

#: A path that fails at more points than this does not come to an end.
MOST = 2000

MARK = "FAULT_INJECTION: forcing a failure."


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One point of a path that was made to fail, and what came of it."""

    path: str
    # It is the n-th allocation or copy of the path.
    nth: int
    # failslab, fail_page_alloc, fail_usercopy; "" for an allocation with __GFP_NOWARN, which fails
    # without a word and without a stack.
    kind: str
    # 0: the call did without.
    errno: int
    # function+0xOFFSET/0xSIZE [module], the innermost first.
    stack: tuple[str, ...]


def is_possible() -> bool:
    """Return whether this kernel can make anything fail."""
    return FAIL_NTH.exists()


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


def parse_stack(lines: list[str]) -> tuple[str, tuple[str, ...]]:
    """Return the kind of the failure that a log tells of, and its stack."""
    first = next((i for i, line in enumerate(lines) if line.startswith(MARK)), None)
    if first is None:
        return "", ()
    # One record of two lines: the log writes what divides them as it writes other odd bytes.
    kind = lines[first].partition("name ")[2].partition(",")[0]
    told = lines[first + 1 :]
    end = next((i for i, line in enumerate(told) if line.strip() == "</TASK>"), len(told))
    frames = (line.strip() for line in told[:end])
    return kind, tuple(frame for frame in frames if "+0x" in frame and not frame.startswith("?"))


def iterate_failures(
    path: str, call: Callable[[], object], mark_step: Callable[[], object]
) -> Iterator[tuple[Failure, object]]:
    """Fail a path at its first point, at its second one, and so on to its last one.

    Args:
        path: Its name.
        call: Walks it.
        mark_step: Called after each point.

    Yields:
        What failed and what the call returned, with nothing failing any more.

    Raises:
        AssertionError: The path has no end.
    """
    with open_log() as log:
        for nth in range(1, MOST):
            log.read_lines()
            reached, error, value = fail_at(nth, call)
            if not reached:
                assert error is None, f"{path} fails by itself: {error}"
                return
            yield _read_failure(log, path, nth, error), value
            mark_step()
    raise AssertionError(f"{path}: still fails at its point {MOST}")


def _read_failure(log: KernelLog, path: str, nth: int, error: OSError | None) -> Failure:
    kind, stack = parse_stack(log.read_lines())
    number = 0 if error is None else error.errno or 0
    return Failure(path=path, nth=nth, kind=kind, errno=number, stack=stack)


def keep(module: str, tester: str, failure: Failure) -> None:
    """Write a point that failed where the host finds it."""
    with (RESULTS / f"failures-{module}-{tester}.jsonl").open("a") as file:
        file.write(json.dumps(asdict(failure)) + "\n")

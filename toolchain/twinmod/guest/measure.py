# SPDX-License-Identifier: GPL-2.0-only
"""Inside a VM that counts: calls of one kind, over and over, with magic instructions around them.

native/profiler.c, in QEMU, knows a magic instruction: it writes down what was executed
since the one before. Calls are made in segments of two lengths, so that what a segment costs
beside its calls is the same in both, and can be taken off. Standard library only.
"""

import ctypes
import mmap
import os
import resource
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from twinmod.guest import door, modules
from twinmod.guest.door import GuestError
from twinmod.guest.modules import Module
from twinmod.guest.protocol import (
    TMPFS_FILE,
    BufferKind,
    Caller,
    LoopShape,
    Measurement,
    Operation,
    Passes,
    Regions,
    Timing,
    Turns,
)

PAGE = 4096

SYMBOLS = Path("/proc/kallsyms")

#: Bytes that all calls of a segment move, at most, where that is more than one.
SEGMENT_BYTES = 256 * 1024
SEGMENT_CALLS = 64

#: Segments of one call that come first: Python takes fewer instructions for what it does again.
WARM_SEGMENTS = 12

#: Where fresh memory lies: far from all else, and where a table of pages begins.
FRESH_ADDRESS = 0x10_0000_0000

#: As much as all calls of a turn by a clock touch.
FRESH_BYTES = 64 * 1024 * 1024

#: More than two nodes of the tree of a process's mappings hold. Source: include/linux/maple_tree.h.
NEIGHBOURS = 48

#: include/uapi/asm-generic/mman-common.h. The kernel first puts the pages that were touched last,
#: which it has kept aside, where they belong: it takes them there 31 at a time.
MADV_COLD = 20

#: There on a kernel that has huge pages for memory of no file.
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")

#: A byte that fills a buffer whose pages must all be there.
TOUCHED = 0x5A

#: include/uapi/linux/time.h
CLOCK_REALTIME_COARSE = 5


def plan_lengths(timing: Timing) -> tuple[int, int]:
    """Return how many calls the two segments of a round make."""
    if timing.operation in (Operation.LOAD, Operation.UNLOAD):
        return 0, 1
    calls = max(1, min(SEGMENT_CALLS, SEGMENT_BYTES // max(timing.size_bytes, 1)))
    return calls, 2 * calls


def plan_warm_segments(timing: Timing) -> int:
    """Return how many segments of one call come first; what is dear and unsteady needs none."""
    dear = timing.buffers == BufferKind.FRESH and timing.size_bytes > SEGMENT_BYTES
    return 0 if dear or timing.operation in (Operation.LOAD, Operation.UNLOAD) else WARM_SEGMENTS


def plan_rounds(timing: Timing, rounds: int) -> int:
    """Return how many rounds are made.

    A thread seldom comes through a long segment without that the kernel lets another one run, and
    an unload waits for others; the first fresh pages are not those of which the kernel has lists.
    """
    if timing.operation in (Operation.LOAD, Operation.UNLOAD):
        return 4 * rounds
    return (
        2 * rounds
        if timing.buffers == BufferKind.FRESH or timing.size_bytes > SEGMENT_BYTES
        else rounds
    )


def plan_stride(timing: Timing) -> int:
    """Return how far apart the buffers of two calls are: a fresh one has pages of its own."""
    return -(-timing.size_bytes // PAGE) * PAGE if timing.buffers == BufferKind.FRESH else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of one kind: how to make ready for some, and to make them."""

    prepare: Callable[[int], object]
    make: Callable[[int], object]


class Profiler:
    """The way to native/profiler.c.

    Args:
        library: native/magic.so.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.executed = 0

    def write_counts(self) -> None:
        """Let QEMU write down what was counted."""
        self.library.magic_counts()
        self.executed += 1

    def read_symbols(self) -> None:
        """Let QEMU read the kernel's symbols, which a loaded module has changed."""
        text = SYMBOLS.read_bytes()
        self.library.magic_symbols(ctypes.c_char_p(text), ctypes.c_size_t(len(text)))

    def count(self, timing: Timing, calls: Calls, rounds: int) -> tuple[int, tuple[int, ...]]:
        """Make calls in rounds of two segments.

        Returns:
            The number of the magic instruction that ended the first segment, and the page faults
            of each segment. Every second one ends one.
        """
        lengths = plan_lengths(timing)
        for _ in range(plan_warm_segments(timing)):
            self.count_segment(calls, 1)
        first = self.executed + 1
        faults = tuple(
            self.count_segment(calls, length)
            for _ in range(plan_rounds(timing, rounds))
            for length in lengths
        )
        return first, faults

    def count_segment(self, calls: Calls, length: int) -> int:
        """Make some calls, counted apart; return the page faults of this thread meanwhile."""
        calls.prepare(length)
        before = read_minor_faults()
        self.write_counts()
        if length:
            calls.make(length)
        self.write_counts()
        return read_minor_faults() - before


def read_minor_faults() -> int:
    """Return the page faults of this thread that needed no disk."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


# -- memory -----------------------------------------------------------------------------------


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p


def _map(address: int, size_bytes: int, protection: int) -> int:
    """Return the address of new memory: the given one, unless something is there.

    Raises:
        OSError: There is none.
    """
    found = _libc.mmap(
        ctypes.c_void_p(address),
        ctypes.c_size_t(size_bytes),
        protection,
        mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        -1,
        ctypes.c_long(0),
    )
    if found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"no memory of {size_bytes} bytes")
    return int(found)


def _advise(address: int, size_bytes: int, advice: int) -> None:
    """Tell the kernel what memory is for.

    Raises:
        OSError: It refused.
    """
    if _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), advice):
        raise OSError(ctypes.get_errno(), f"madvise {advice}")


@cache
def reserve() -> int:
    """Return the address of memory for fresh pages, the same mapping for the process's whole life.

    Every fault looks its mapping up in a tree, and where in the tree it is costs instructions. So
    it is made first, and has neighbours that keep all later ones away from its part of the tree.
    """
    address = _map(FRESH_ADDRESS, FRESH_BYTES, mmap.PROT_READ | mmap.PROT_WRITE)
    for number in range(NEIGHBOURS):
        # No two of one protection side by side: they would be one mapping.
        protection = mmap.PROT_READ if number % 2 else 0
        _map(address + FRESH_BYTES + number * PAGE, PAGE, protection)
    # A fault for every page, wherever the memory lies. A kernel without huge pages refuses.
    if HUGE_PAGES.exists():
        _advise(address, FRESH_BYTES, mmap.MADV_NOHUGEPAGE)
    return address


def become_threaded() -> None:
    """Let glibc treat this process as one with threads, whatever it did before.

    A process that once had a second thread pays some 30 instructions more in the program for each
    call that is a cancellation point, until it ends; its children inherit that.

    Source: glibc 2.41, SINGLE_THREAD_P in sysdeps/unix/sysv/linux/single-thread.h.
    """
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


class Buffers:
    """Memory for the calls of one segment after another.

    Args:
        size_bytes: Of a buffer.
        stride: How far apart the buffers of two calls are; 0: it is one buffer.
    """

    def __init__(self, size_bytes: int, stride: int) -> None:
        self.size_bytes = size_bytes
        self.stride = stride
        self.address = 0

    def prepare(self, length: int) -> None:
        """Have memory for some calls: the same as before, or none that is touched.

        Raises:
            ValueError: So much is not there to be fresh.
        """
        if self.stride:
            if length * self.stride > FRESH_BYTES:
                raise ValueError(f"{length} fresh buffers of {self.stride} bytes are too many")
            self.address = reserve()
            _advise(self.address, FRESH_BYTES, mmap.MADV_DONTNEED)
            _advise(self.address, PAGE, MADV_COLD)
        elif not self.address:
            size_bytes = max(self.size_bytes, PAGE)
            self.address = _map(0, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE)
            ctypes.memset(self.address, TOUCHED, size_bytes)
            weakref.finalize(
                self, _libc.munmap, ctypes.c_void_p(self.address), ctypes.c_size_t(size_bytes)
            )


# -- calls ------------------------------------------------------------------------------------


def plan_transfer(timing: Timing, device: Any) -> Calls:
    """Return calls that move bytes between an open file and memory."""
    stride = plan_stride(timing)
    buffers = Buffers(timing.size_bytes, stride)

    def prepare(length: int) -> None:
        buffers.prepare(length)
        device.lseek(0, os.SEEK_SET)

    def make(length: int) -> None:
        device.repeat(
            timing.operation, length, address=buffers.address, size=timing.size_bytes, stride=stride
        )

    return Calls(prepare=prepare, make=make)


def plan_bare(timing: Timing, descriptor: int, library: ctypes.CDLL) -> Calls:
    """Return the same calls from a loop in C with nothing else in it."""
    buffers = Buffers(timing.size_bytes, 0)
    loop = {"pread": library.bare_pread, "pwrite": library.bare_pwrite}[timing.operation]

    def make(length: int) -> None:
        loop(
            descriptor,
            ctypes.c_void_p(buffers.address),
            ctypes.c_size_t(timing.size_bytes),
            ctypes.c_long(length),
        )

    return Calls(prepare=buffers.prepare, make=make)


class Loader:
    """Loads and unloads a module, and makes no call meanwhile but those that do so.

    Args:
        module: Loaded.
        parameters: As the kernel takes them.
    """

    def __init__(self, module: Module, parameters: str) -> None:
        self.name = module.name.encode()
        self.descriptor = os.open(module.ko_path, os.O_RDONLY)
        self.parameters = parameters.encode()
        self.loaded = True

    def load(self, _: int = 1) -> None:
        """Load it."""
        modules.finit_module(self.descriptor, self.parameters)
        self.loaded = True

    def unload(self, _: int = 1) -> None:
        """Unload it."""
        modules.delete_module(self.name)
        self.loaded = False

    def ensure(self, *, loaded: bool) -> None:
        """Load or unload it, unless that is how it is."""
        if loaded and not self.loaded:
            self.load()
        elif self.loaded and not loaded:
            self.unload()

    def plan_loads(self) -> Calls:
        """Return calls that load it."""
        return Calls(prepare=lambda _: self.ensure(loaded=False), make=self.load)

    def plan_unloads(self) -> Calls:
        """Return calls that unload it."""
        return Calls(prepare=lambda _: self.ensure(loaded=True), make=self.unload)


@contextmanager
def open_calls(
    timing: Timing, path: str, tester: Any, library: ctypes.CDLL, loader: Loader | None
) -> Iterator[Calls]:
    """Give calls of one kind until the context is left.

    Args:
        timing: Which.
        path: What they are made on.
        tester: The extension that makes them.
        library: native/magic.so.
        loader: Of the module, None for a yardstick.
    """
    if timing.operation == Operation.OPEN:
        yield Calls(prepare=lambda _: None, make=lambda n: tester.Device.repeat_open(path, n))
    elif timing.operation in (Operation.LOAD, Operation.UNLOAD):
        assert loader is not None, "a yardstick has no module"
        yield loader.plan_loads() if timing.operation == Operation.LOAD else loader.plan_unloads()
        loader.ensure(loaded=True)
    else:
        with tester.Device(path) as device:
            if timing.operation == Operation.ADD:
                yield Calls(prepare=lambda _: None, make=lambda n: device.repeat("add", n))
            elif timing.loop == Caller.BARE:
                yield plan_bare(timing, device.fileno(), library)
            else:
                yield plan_transfer(timing, device)


# -- a loop of reads and writes ---------------------------------------------------------------

LOOP_TIMEOUT_S = 120.0


def parse_loop(output: str) -> dict[str, tuple[int, ...]]:
    """Return what native/loop.c wrote, by name: a number for each pass."""
    names = ("read_ns", "read_faults", "write_ns", "write_faults")
    passes = (tuple(map(int, line.split())) for line in output.splitlines())
    return dict(zip(names, zip(*passes, strict=True), strict=True))


def iterate_loops(path: str, program: str, shape: LoopShape) -> Iterator[Passes]:
    """Yield what a loop of reads and writes took, with a new buffer in each pass and with one.

    Args:
        path: Of the device.
        program: native/loop.
        shape: How large the loop is.
    """
    for buffers in (BufferKind.FRESH, BufferKind.REUSED):
        argv = (program, path, buffers, str(shape.size_bytes), str(shape.passes))
        status, output = door.run(argv, LOOP_TIMEOUT_S)
        if status != 0:
            raise GuestError(f"the loop ended with status {status}: {output.strip()}")
        yield Passes(size_bytes=shape.size_bytes, buffers=buffers, **parse_loop(output))


# -- turns by a clock -------------------------------------------------------------------------

#: How many times as many calls as an exact segment makes: a turn is longer than what Python takes
#: to begin and to end it.
TURN_FACTOR = 16

#: How many times as many that are where there are several threads, which take time to begin.
THREAD_FACTOR = 8

#: What each thread of a count adds up, in a turn.
INCREMENTS = 500


def plan_turn_calls(timing: Timing) -> int:
    """Return how many calls each thread makes in a turn."""
    if timing.operation == Operation.COUNT:
        return INCREMENTS
    short, long = plan_lengths(timing)
    if timing.operation in (Operation.LOAD, Operation.UNLOAD):
        return long - short
    factor = THREAD_FACTOR if timing.threads > 1 else 1
    return (long - short) * TURN_FACTOR * factor


class Team:
    """Threads that make the same calls at once, each on its own region or all on one.

    Args:
        timing: What they do.
        device: On what.
        pool: Has as many threads, which are there before a turn begins.
    """

    def __init__(self, timing: Timing, device: Any, pool: ThreadPoolExecutor) -> None:
        self.timing = timing
        self.device = device
        self.pool = pool
        self.stride = plan_stride(timing)
        self.buffers = [Buffers(timing.size_bytes, self.stride) for _ in range(timing.threads)]

    def prepare(self, length: int) -> None:
        """Have memory for every thread."""
        for buffers in self.buffers:
            buffers.prepare(length)

    def make(self, length: int) -> None:
        """Let all threads make some calls, and wait for the last.

        Raises:
            OSError: A call of one of them failed.
        """

        def work(number: int) -> None:
            region = number * max(self.timing.size_bytes, PAGE)
            self.device.repeat(
                self.timing.operation,
                length,
                address=self.buffers[number].address,
                size=self.timing.size_bytes,
                stride=self.stride,
                offset=region if self.timing.regions == Regions.DISJOINT else 0,
            )

        for done in [self.pool.submit(work, n) for n in range(self.timing.threads)]:
            done.result()


@contextmanager
def open_turn(
    timing: Timing, path: str, tester: Any, library: ctypes.CDLL, loader: Loader | None
) -> Iterator[Calls]:
    """Give calls of one kind for a clock; see open_calls."""
    if timing.operation == Operation.COUNT:
        with tester.Device(path) as device:
            yield Calls(prepare=lambda _: None, make=lambda n: device.count_up(timing.threads, n))
    elif timing.threads > 1:
        with tester.Device(path) as device, ThreadPoolExecutor(timing.threads) as pool:
            team = Team(timing, device, pool)
            yield Calls(prepare=team.prepare, make=team.make)
    else:
        with open_calls(timing, path, tester, library, loader) as calls:
            yield calls


def time_turn(calls: Calls, length: int) -> tuple[int, int]:
    """Return the nanoseconds and the page faults of some calls."""
    calls.prepare(length)
    faults = read_minor_faults()
    begin_ns = time.monotonic_ns()
    calls.make(length)
    spent_ns = time.monotonic_ns() - begin_ns
    return spent_ns, read_minor_faults() - faults


def take_turns(
    timing: Timing, tester: str, contenders: Mapping[str, Calls], turns: int
) -> Iterator[Turns]:
    """Let every contender make the same calls, one after the other, as often as there are turns.

    What drifts meanwhile hits all. The order changes from turn to turn. The first turn is not
    believed.
    """
    length = plan_turn_calls(timing)
    spent: dict[str, list[tuple[int, int]]] = {name: [] for name in contenders}
    for number in range(turns + 1):
        names = list(contenders)
        for name in names if number % 2 else reversed(names):
            spent[name].append(time_turn(contenders[name], length))
    for name, values in spent.items():
        yield Turns(
            timing=timing,
            module=name,
            tester=tester,
            calls=length,
            latency_ns=tuple(round(ns / length, 1) for ns, _ in values[1:]),
            minor_faults=round(sum(f for _, f in values[1:]) / (length * turns), 3),
        )


# -- a cell -----------------------------------------------------------------------------------


def prepare_file(path: Path, size_bytes: int) -> None:
    """Have a file in memory whose pages are all there.

    It was read after it was written, so that no read has to note its time, and the clock that
    the kernel notes times by has moved since: until then each call would compare it with another.
    """
    path.write_bytes(bytes([TOUCHED]) * size_bytes)
    now = time.time()
    os.utime(path, (now + 3600, now))
    noted = time.time()
    while time.clock_gettime(CLOCK_REALTIME_COARSE) <= noted:
        pass


def iterate_timings(
    profiler: Profiler, measurement: Measurement, module: str, tester: Any, loader: Loader | None
) -> Iterator[tuple[Timing, int, tuple[int, ...]]]:
    """Make the calls of a measurement, and yield each kind with where, in what was written, it is.

    Args:
        profiler: Which counts them.
        measurement: What is measured.
        module: Whose device is called; "" measures the yardsticks.
        tester: The extension.
        loader: Of the module, None for a yardstick.

    Yields:
        What Profiler.count returned, after the kind of the calls.
    """
    for timing in measurement.timings:
        if bool(timing.path) == bool(module):
            continue
        path = timing.path or f"/dev/{module}"
        if path == TMPFS_FILE:
            prepare_file(Path(path), 2 * timing.size_bytes)
        with open_calls(timing, path, tester, profiler.library, loader) as calls:
            first, faults = profiler.count(timing, calls, measurement.rounds)
        yield timing, first, faults


def iterate_turns(
    measurement: Measurement,
    tester_name: str,
    tester: Any,
    library: ctypes.CDLL,
    loaders: Mapping[str, Loader],
) -> Iterator[Turns]:
    """Time the calls of a measurement in turns, and yield what each module's took.

    Args:
        measurement: What is measured.
        tester_name: The tester's.
        tester: The extension that makes the calls.
        library: native/magic.so.
        loaders: Of every module, by name.
    """
    for timing in measurement.timings:
        if timing.path == TMPFS_FILE:
            prepare_file(Path(timing.path), 2 * timing.size_bytes)
        with ExitStack() as stack:
            contenders = {
                name: stack.enter_context(
                    open_turn(timing, timing.path or f"/dev/{name}", tester, library, loader)
                )
                for name, loader in ({"": None} if timing.path else loaders).items()
            }
            yield from take_turns(timing, tester_name, contenders, measurement.turns)

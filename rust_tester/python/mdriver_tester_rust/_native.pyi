# SPDX-License-Identifier: GPL-2.0-only
import os
from typing import Final, Literal, Self, final

from typing_extensions import Buffer

__all__ = ["IOC_ADD", "IOC_CLEAR", "IOC_SIZE", "TESTER", "Count", "Device", "Timing"]

# The language of the tester: "c" or "rust".
TESTER: Final[str]

# The request numbers for Device.ioctl, as the module's own header gives them.
IOC_SIZE: Final[int]
IOC_CLEAR: Final[int]
IOC_ADD: Final[int]

# The result of timed calls; both tuples have one number per call, in the order of calls.
@final
class Timing:
    @property
    def latency_ns(self) -> tuple[int, ...]: ...
    @property
    def minor_faults(self) -> tuple[int, ...]: ...

# The result of count_up; the values are modulo 2**64, the times are those of the whole process.
@final
class Count:
    @property
    def target(self) -> int: ...
    @property
    def actual(self) -> int: ...
    @property
    def real_s(self) -> float: ...
    @property
    def user_s(self) -> float: ...
    @property
    def system_s(self) -> float: ...

# An open device. A failing call raises OSError with its errno; after close(), ValueError.
# A number that does not fit its C type raises OverflowError; a negative size, ValueError.
@final
class Device:
    def __new__(cls, path: str | os.PathLike[str], flags: int = 2) -> Self: ...
    @property
    def fd(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...
    def fileno(self) -> int: ...
    # One system call each, never a loop. Sizes, offsets and results are bytes.
    def read(self, size: int) -> bytes: ...
    def write(self, data: Buffer) -> int: ...
    def pread(self, size: int, offset: int) -> bytes: ...
    def pwrite(self, data: Buffer, offset: int) -> int: ...
    def lseek(self, offset: int, whence: int) -> int: ...
    # A raw address in user space, which nothing checks: for the rules about bad ones.
    def read_to(self, address: int, size: int) -> int: ...
    def write_from(self, address: int, size: int) -> int: ...
    def pread_to(self, address: int, size: int, offset: int) -> int: ...
    def pwrite_from(self, address: int, size: int, offset: int) -> int: ...
    # The argument goes to the kernel as it is, an address or a number.
    def ioctl(self, request: int, argument: int = 0) -> int: ...
    def size(self) -> int: ...
    def clear(self) -> None: ...
    # Adds modulo 2**64 to the 8 bytes at `offset`; returns what they were before.
    def add(self, offset: int, delta: int) -> int: ...
    # Timed calls of `size` bytes at `offset`, by a clock of time.CLOCK_*. fresh: each call gets a
    # new zeroed buffer, allocated while the clock runs. ValueError: calls below 1.
    # OSError: a failing call, or one that moves less (EIO).
    def time_pread(
        self, size: int, calls: int, *, offset: int = 0, fresh: bool = False, clock: int = 1
    ) -> Timing: ...
    def time_pwrite(
        self, size: int, calls: int, *, offset: int = 0, fresh: bool = False, clock: int = 1
    ) -> Timing: ...
    # Calls of one kind with next to nothing between them: each moves `size` bytes from or to a raw
    # address, `stride` bytes behind the one before, or adds 1 to the 8 bytes at `offset`.
    # ValueError: calls below 1, another operation. OSError: as above.
    def repeat(
        self,
        operation: Literal["read", "write", "pread", "pwrite", "add"],
        calls: int,
        *,
        address: int = 0,
        size: int = 0,
        stride: int = 0,
        offset: int = 0,
    ) -> None: ...
    # Opens a path and closes it again, `calls` times. ValueError: calls below 1.
    @staticmethod
    def repeat_open(path: str | os.PathLike[str], calls: int, *, flags: int = 2) -> None: ...
    # Threads, each of which adds 1 to the 8 bytes at `offset`, `increments` times, by a method:
    # lock: pread and pwrite under one lock of all threads; add: one IOC_ADD, no lock; racy: pread
    # and pwrite, no lock, so increments may be lost.
    # ValueError: threads outside 1..1024, increments below 1, another method.
    # RuntimeError: a thread did not start.
    def count_up(
        self,
        threads: int,
        increments: int,
        *,
        offset: int = 0,
        start: int = 69,
        method: Literal["lock", "add", "racy"] = "lock",
    ) -> Count: ...

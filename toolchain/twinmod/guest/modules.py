# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading kernel modules, by the system calls alone."""

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: arch/x86/entry/syscalls/syscall_64.tbl, Linux 7.3.
NR_DELETE_MODULE = 176
NR_FINIT_MODULE = 313

#: What an errno of delete_module(2) means, where its usual words are not about modules.
UNLOAD_REASONS = {
    errno.EWOULDBLOCK: "it is in use",
    errno.EBUSY: "it has no exit function, or the kernel is loading or unloading it",
}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A kernel module, loaded or not."""

    name: str
    # The file that holds it.
    ko_path: Path

    @property
    def device_path(self) -> Path:
        """The node of its device while it is loaded."""
        return Path("/dev") / self.name

    @property
    def sysfs_path(self) -> Path:
        """What the kernel shows of it while it is loaded."""
        return Path("/sys/module") / self.name

    def is_loaded(self) -> bool:
        """Return whether the kernel has it."""
        return self.sysfs_path.exists()

    def load(self, parameters: str = "") -> None:
        """Load it with parameters such as ``size=4096``.

        Raises:
            OSError: What open(2) or finit_module(2) failed with.
        """
        with self.ko_path.open("rb") as file:
            finit_module(file.fileno(), parameters.encode())

    def unload(self) -> None:
        """Unload it, without waiting for its users.

        Raises:
            OSError: What delete_module(2) failed with.
        """
        delete_module(self.name.encode())


def finit_module(descriptor: int, parameters: bytes) -> None:
    """Load the module that an open file holds.

    Raises:
        OSError: The kernel refused.
    """
    if _libc.syscall(NR_FINIT_MODULE, descriptor, parameters, 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def delete_module(name: bytes) -> None:
    """Unload a module, without waiting for its users.

    Raises:
        OSError: The kernel refused.
    """
    if _libc.syscall(NR_DELETE_MODULE, name, os.O_NONBLOCK) < 0:
        code = ctypes.get_errno()
        raise OSError(code, UNLOAD_REASONS.get(code, os.strerror(code)))


def find_refusal(call: Callable[[], object]) -> str:
    """Load or unload a module by a call; return why that failed, or ""."""
    try:
        call()
    except OSError as error:
        return error.strerror or str(error)
    return ""

# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading kernel modules, by the system calls alone."""

import ctypes
import errno
import os
from collections.abc import Callable, Mapping
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

#: By name, what a module is given at each load in this VM, before what its loader asks for.
_given: dict[str, str] = {}


def give(parameters: Mapping[str, str]) -> None:
    """Let modules have parameters at each load, by whomever in this process or in its children.

    Args:
        parameters: By a module's name; all others have none.
    """
    _given.clear()
    _given.update(parameters)


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
        """Load it with its own parameters, and after them others such as ``size=4096``.

        Raises:
            OSError: What open(2) or finit_module(2) failed with.
        """
        words = " ".join(filter(None, (_given.get(self.name, ""), parameters)))
        with self.ko_path.open("rb") as file:
            finit_module(file.fileno(), words.encode())

    def unload(self) -> None:
        """Unload it, without waiting for its users.

        Raises:
            OSError: What delete_module(2) failed with.
        """
        delete_module(self.name.encode())


def load_needed(needed: Mapping[str, Path]) -> str:
    """Load what other modules need, in this order, and leave what is there.

    Args:
        needed: By name, the file of each.

    Returns:
        Why one did not load; "".
    """
    for name, path in needed.items():
        module = Module(name=name, ko_path=path)
        problem = "" if module.is_loaded() else find_refusal(module.load)
        if problem:
            return f"{name}, which is needed first, did not load: {problem}"
    return ""


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

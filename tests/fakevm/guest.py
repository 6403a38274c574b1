# SPDX-License-Identifier: GPL-2.0-only
"""The agent on this host: ``python guest.py WORLD`` runs it as a VM would, in a world of files.

What it finds below /results, /dev, /sys and /proc lies in a folder. What would end this host, load
a module into its kernel or read its log does so in the world, or is only noted.
"""

import builtins
import ctypes
import errno
import fcntl
import io
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORLD = Path(sys.argv[1])

#: Where a path leads into the world; /proc is the host's own but for what gives orders.
REDIRECTED = ("/results", "/dev", "/sys", "/proc/sysrq-trigger", "/bin/bash", "/usr/bin/ls")

#: What a C library is never asked for: it is noted.
NOTED = ("reboot", "magic_counts", "magic_symbols", "bare_pread", "bare_pwrite")

#: arch/x86/entry/syscalls/syscall_64.tbl, Linux 7.3.
NR_DELETE_MODULE = 176
NR_FINIT_MODULE = 313


def note(text: str) -> None:
    """Append a line to what was called."""
    with REAL_OPEN(WORLD / "called", "a") as file:
        file.write(text + "\n")


REAL_OPEN, REAL_LIBRARY, REAL_SEEK = io.open, ctypes.CDLL, os.lseek


class Library:
    """A C library of which some functions do nothing."""

    def __init__(self, name: str | None, **options: Any) -> None:
        del name
        self._real = REAL_LIBRARY(None, **options)

    def __getattr__(self, name: str) -> Any:
        if name == "syscall":
            return call_kernel
        if name == "read_config":
            return read_config
        return _make_noted(name) if name in NOTED else getattr(self._real, name)


def _make_noted(name: str) -> Callable[..., int]:
    def call(*arguments: object) -> int:
        note(" ".join((name, *(str(a) for a in arguments if isinstance(a, int)))))
        return 0

    return call


def call_kernel(number: int, *arguments: Any) -> int:
    """Load or unload a module of the world, as these two system calls do; there are no others.

    They fail as a file of the world wants that is named as they are: it holds an errno.
    """
    if number == NR_FINIT_MODULE:
        descriptor, parameters, _ = arguments
        name = Path(f"/proc/self/fd/{descriptor}").readlink().stem
        return load(name, parameters.decode())
    assert number == NR_DELETE_MODULE, number
    name, _ = arguments
    return unload(name.decode())


def read_config(item: Any, buffer: Any, size: Any) -> int:
    """Read an item of fw_cfg: it lists one file, that of the world which holds a delivery."""
    note(f"read_config {item.value:#x}")
    with REAL_OPEN(WORLD / "held", "rb") as file:
        content = file.read()
    directory = struct.pack(">IIHxx56s", 1, len(content), 0x20, b"opt/twinmod/delivery")
    ctypes.memmove(buffer, {0x19: directory, 0x20: content}[item.value], size.value)
    return 0


def load(name: str, parameters: str) -> int:
    """Load a module: it has a folder, and a device unless "bare" names it.

    Returns what finit_module(2) does.
    """
    note(f"finit_module {name} {parameters}".rstrip())
    folder = WORLD / "sys/module" / name
    if is_refused("finit_module", errno.EEXIST if folder.exists() else 0):
        return -1
    folder.mkdir()
    bare = WORLD / "bare"
    if not (bare.exists() and name in bare.read_text().split()):
        (WORLD / "dev" / name).touch()
    return 0


def unload(name: str) -> int:
    """Unload a module; return what delete_module(2) does."""
    note(f"delete_module {name}")
    folder = WORLD / "sys/module" / name
    if is_refused("delete_module", 0 if folder.exists() else errno.ENOENT):
        return -1
    (WORLD / "dev" / name).unlink(missing_ok=True)
    folder.rmdir()
    return 0


def is_refused(call: str, code: int) -> bool:
    """Let the kernel say what it has to say of a call; tell whether the call fails.

    One that is stuck never returns.
    """
    write_log(f"{call}.log")
    path = WORLD / call
    if path.exists() and path.read_text() == "stuck":
        signal.pause()
    ctypes.set_errno(int(path.read_text()) if path.exists() else code)
    return ctypes.get_errno() != 0


def write_log(name: str) -> None:
    """Write what a file of the world holds, if it is there, to the kernel's log."""
    path = WORLD / name
    if path.exists():
        with REAL_OPEN(WORLD / "dev/kmsg", "w") as log:
            log.write(path.read_text())


def find_path(path: Any) -> Any:
    """Return where a path leads in the world."""
    if not isinstance(path, str | os.PathLike):
        return path
    text = os.fspath(path)
    inside = any(text == part or text.startswith(part + "/") for part in REDIRECTED)
    return f"{WORLD}{text}" if inside and text != os.devnull else path


def redirect(module: Any, name: str) -> None:
    """Let a function of the system that takes a path see the world."""
    real = getattr(module, name)

    def call(path: Any, *arguments: Any, **named: Any) -> Any:
        return real(find_path(path), *arguments, **named)

    setattr(module, name, call)


def seek(descriptor: int, offset: int, whence: int) -> int:
    """Seek; a pipe that is the kernel's log has no place to seek to."""
    try:
        return REAL_SEEK(descriptor, offset, whence)
    except OSError as error:
        if error.errno != errno.ESPIPE:
            raise
        return 0


def is_mounted(path: object) -> bool:
    """Tell whether the host shares a folder: not with a VM that waits for a delivery."""
    return str(path) == "/results" and not (WORLD / "unshared").exists()


def enter() -> None:
    """Let this process, and what it starts, be in the world."""
    ctypes.CDLL = Library  # type: ignore[assignment,misc]
    for name in ("open", "stat", "listdir", "scandir", "execv", "utime", "unlink"):
        redirect(os, name)
    for module in (io, builtins):
        redirect(module, "open")
    os.lseek = seek
    time.clock_settime = lambda clock, seconds: note(f"clock_settime {clock} {seconds}")
    vars(fcntl)["ioctl"] = lambda descriptor, request, *_: note(f"ioctl {request:#x}")
    os.path.ismount = is_mounted


if __name__ == "__main__":
    enter()
    from twinmod.guest import agent, child, log, waking

    child.HEARTBEAT_S = 0.05
    vars(agent)["HEARTBEAT_S"] = child.HEARTBEAT_S
    log.SPLAT_PAUSE_S = 0.02
    waking.PLUGGING_LIMIT_S = 0.05
    agent.main()

# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU holds for a VM, in its firmware configuration device (fw_cfg).

A program of the VM fetches it: the same instructions on any host. What comes by a port interrupts
the VM, after more instructions the busier the host is.

Source: docs/specs/fw_cfg.rst, QEMU 10.0.
"""

import ctypes
import struct
import time
from collections.abc import Callable

from twinmod.guest.door import GuestError

#: The item that lists the files, each with its size, its own item, and its name.
DIRECTORY = 0x19
COUNT = struct.Struct(">I")
FILE = struct.Struct(">IHxx56s")

#: The file with a VM's delivery.
DELIVERY = "opt/twinmod/delivery"

#: Between two looks at the directory, by the VM's clock.
INTERVAL_S = 0.1

#: Returns the first bytes of an item, as many as it is asked for.
Read = Callable[[int, int], bytes]


def wait_for_file(library: ctypes.CDLL, name: str) -> bytes:
    """Return a file's content once QEMU has it, which may be another QEMU than at first.

    Args:
        library: native/magic.so.
        name: Of the file.

    Raises:
        GuestError: This program may not read there.
    """

    def read(item: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        if library.read_config(ctypes.c_uint16(item), buffer, ctypes.c_size_t(size)):
            raise GuestError("the kernel lets no program read from fw_cfg")
        return buffer.raw

    while (content := read_file(read, name)) is None:
        time.sleep(INTERVAL_S)
    return content


def read_file(read: Read, name: str) -> bytes | None:
    """Return a file's content, None where QEMU has none of that name."""
    for size, item, encoded in FILE.iter_unpack(read_directory(read)):
        if encoded.rstrip(b"\0") == name.encode():
            return read(item, size)
    return None


def read_directory(read: Read) -> bytes:
    """Return the entries of the directory, as two looks at it agree on.

    A VM that is saved at a look goes on within another QEMU: one part of what it sees then is of
    the directory of the first, and the other of the second.
    """
    (count,) = COUNT.unpack(read(DIRECTORY, COUNT.size))
    size = COUNT.size + count * FILE.size
    seen = read(DIRECTORY, size)
    while (again := read(DIRECTORY, size)) != seen:
        seen = again
    return seen[COUNT.size :]

# SPDX-License-Identifier: GPL-2.0-only
"""What a VM reads of QEMU's fw_cfg."""

import ctypes
import struct
from typing import Any, cast

import pytest

from twinmod.guest import fwcfg
from twinmod.guest.door import GuestError

NAME = fwcfg.DELIVERY


def render(files: dict[str, bytes]) -> dict[int, bytes]:
    """Return items as docs/specs/fw_cfg.rst has them: of each file its size, its item, its name."""
    directory = struct.pack(">I", len(files))
    for item, (name, content) in enumerate(files.items(), 0x20):
        directory += struct.pack(">IHH56s", len(content), item, 0, name.encode())
    return {fwcfg.DIRECTORY: directory, **dict(enumerate(files.values(), 0x20))}


class Device:
    """A library that reads a fw_cfg.

    Args:
        items: By number.
        status: What each call returns.
    """

    def __init__(self, items: dict[int, bytes], status: int = 0) -> None:
        self.items = items
        self.status = status
        self.read: list[tuple[int, int]] = []
        # After so many calls it has other items; with a call that has read so many bytes.
        self.changes: list[tuple[int, int, dict[int, bytes]]] = []

    def read_config(self, item: ctypes.c_uint16, buffer: Any, size: ctypes.c_size_t) -> int:
        self.read.append((item.value, size.value))
        content = self.items[item.value][: size.value]
        if self.changes and self.changes[0][0] == len(self.read):
            _, place, self.items = self.changes.pop(0)
            content = content[:place] + self.items[item.value][place : size.value]
        buffer[: size.value] = content.ljust(size.value, b"\0")
        return self.status


def wait(device: Device) -> bytes:
    return fwcfg.wait_for_file(cast(ctypes.CDLL, device), NAME)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []

    def sleep(seconds: float) -> None:
        assert len(found) < 9, "it is there, and nobody sees it"
        found.append(seconds)

    monkeypatch.setattr("time.sleep", sleep)
    return found


def test_a_file_is_found_by_its_name_and_read_whole() -> None:
    others = {"etc/acpi/tables": b"x" * 300, f"{NAME}.old": b"old"}
    device = Device(render({**others, NAME: b'{"plan": 1}\n', "bootorder": b""}))
    assert wait(device) == b'{"plan": 1}\n'
    assert device.read[0] == (0x19, 4)
    assert device.read[-2:] == [(0x19, 4 + 4 * 64), (0x22, 12)]


def test_a_file_is_waited_for_until_qemu_has_it(slept: list[float]) -> None:
    device = Device(render({"a": b"x"}))
    device.changes = [(7, 0, render({"a": b"x", NAME: b"now"}))]
    assert wait(device) == b"now"
    assert slept == [fwcfg.INTERVAL_S] * 2


@pytest.mark.parametrize("call", range(1, 7))
@pytest.mark.parametrize("place", range(0, 4 + 2 * 64, 2))
def test_a_vm_that_is_saved_while_it_looks_takes_nothing_else_for_its_delivery(
    call: int, place: int, slept: list[float]
) -> None:
    device = Device(render({"a": b"x", "pci": b"another"}))
    after = render({"a": b"x", NAME: b"the delivery", "pci": b"another"})
    device.changes = [(call, place, after)]
    assert wait(device) == b"the delivery"
    assert len(slept) <= 2


def test_an_empty_file_is_there() -> None:
    assert wait(Device(render({NAME: b""}))) == b""


def test_a_kernel_that_lets_no_program_read_ends_the_wait() -> None:
    with pytest.raises(GuestError, match="lets no program read from fw_cfg"):
        wait(Device(render({NAME: b"x"}), status=-1))

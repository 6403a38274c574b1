# SPDX-License-Identifier: GPL-2.0-only
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import SIZE

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R16")

READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
ASKED = READY | select.POLLPRI | select.POLLRDHUP | select.POLLRDBAND


@pytest.fixture
def files(open_device: "OpenDevice") -> "list[Device]":
    """The device at its start, at its end, and opened with less than all rights."""
    files = [open_device(flags) for flags in (os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_WRONLY)]
    files[1].lseek(SIZE, os.SEEK_SET)
    return files


def test_poll_finds_it_ready(files: "list[Device]") -> None:
    for file in files:
        poll = select.poll()
        poll.register(file.fd, ASKED)
        assert poll.poll(0) == [(file.fd, READY)]
        poll.modify(file.fd, select.POLLIN)
        assert poll.poll(0) == [(file.fd, select.POLLIN)]
        poll.modify(file.fd, select.POLLOUT)
        assert poll.poll(0) == [(file.fd, select.POLLOUT)]


def test_select_finds_it_ready(files: "list[Device]") -> None:
    numbers = [file.fd for file in files]
    assert select.select(numbers, numbers, numbers, 0) == (numbers, numbers, [])


def test_epoll_takes_it_and_finds_it_ready(files: "list[Device]") -> None:
    for file in files:
        with select.epoll() as epoll:
            epoll.register(file.fd, ASKED)
            assert epoll.poll(0) == [(file.fd, READY)]
            assert epoll.poll(0) == [(file.fd, READY)], "ready once, and then no more"
            epoll.modify(file.fd, select.EPOLLOUT)
            assert epoll.poll(0) == [(file.fd, select.EPOLLOUT)]
            epoll.unregister(file.fd)
            assert epoll.poll(0) == []


def test_epoll_tells_an_edge_once(device: "Device") -> None:
    with select.epoll() as epoll:
        epoll.register(device.fd, select.EPOLLIN | select.EPOLLET)
        assert epoll.poll(0) == [(device.fd, select.EPOLLIN)]
        device.pwrite(b"x", 0)
        assert epoll.poll(0) == []
        epoll.modify(device.fd, select.EPOLLOUT | select.EPOLLET)
        assert epoll.poll(0) == [(device.fd, select.EPOLLOUT)]
        assert epoll.poll(0) == []

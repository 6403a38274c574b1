# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU is told to do with a VM that runs.

Source: docs/interop/qmp-spec.rst, QEMU 10.0.
"""

import json
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from twinmod.base import process
from twinmod.errors import VmLostError
from twinmod.vm import machine

#: How long QEMU may take to answer: it is busy with one thing at a time.
ANSWER_TIMEOUT_S = 20.0

#: How much is read from it at once, at most.
PART_BYTES = 1 << 16


class QemuEndedError(VmLostError):
    """QEMU is gone: how it ended says more."""


class Monitor:
    """A conversation with QEMU.

    Args:
        connection: To its monitor, where QEMU speaks first.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # What came, as far as it was not read.
        self._rest = b""
        # What QEMU said of its own accord, as far as nobody waited for it.
        self._events: list[Mapping[str, Any]] = []
        self._read_answer("the greeting")
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Mapping[str, Any]:
        """Let QEMU do something; return what it answers.

        Raises:
            VmLostError: It refuses, or does not answer.
        """
        request = json.dumps({"execute": command, "arguments": arguments})
        self._connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            self._connection.sendall(request.encode() + b"\n")
        except OSError as error:
            raise plan_silence(command, error) from error
        # What it says of its own accord comes between.
        while "return" not in (answer := self._read_answer(command)):
            if "error" in answer:
                raise VmLostError(
                    f"QEMU refuses {command}: {answer['error']['desc']}",
                    facts=(("asked", request),),
                )
            self._events.append(answer)
        returned: Mapping[str, Any] = answer["return"]
        return returned

    def wait_for(self, names: tuple[str, ...], limit_s: float, **data: Any) -> str:
        """Return the name of the first of some events, which may have come already.

        Args:
            names: Of the events.
            limit_s: How long it may take, in seconds.
            data: What the event says, at least.

        Raises:
            TimeoutError: None of them came.
            QemuEndedError: QEMU is gone.
        """
        deadline = time.monotonic() + limit_s
        while True:
            for message in self._events:
                said = message.get("data", {})
                if message.get("event") in names and data.items() <= said.items():
                    self._events.remove(message)
                    return str(message["event"])
            self._events.append(self._read(" or ".join(names), deadline))

    def _read_answer(self, command: str) -> Mapping[str, Any]:
        try:
            return self._read(command, time.monotonic() + ANSWER_TIMEOUT_S)
        except TimeoutError as error:
            raise plan_silence(command, error) from error

    def _read(self, wanted: str, deadline: float) -> Mapping[str, Any]:
        """Return what QEMU says next.

        Raises:
            TimeoutError: It did not do so before the deadline.
            VmLostError: It ended, or says something else.
        """
        while b"\n" not in self._rest:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError
            self._connection.settimeout(remaining_s)
            try:
                part = self._connection.recv(PART_BYTES)
            except ConnectionError as error:
                raise plan_silence(wanted, error) from error
            if not part:
                raise plan_silence(wanted, None)
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            message: Mapping[str, Any] = json.loads(line)
        except ValueError as error:
            facts = (("said", line.decode(errors="replace")),)
            raise VmLostError(f"QEMU's answer is not JSON: {wanted}", facts=facts) from error
        return message


def plan_silence(wanted: str, error: OSError | None) -> VmLostError:
    """Return the error of a QEMU that does not answer.

    Args:
        wanted: What it was asked, or waited for.
        error: What came of it; None when it hung up.
    """
    if isinstance(error, TimeoutError):
        return VmLostError(f"QEMU did not answer within {ANSWER_TIMEOUT_S:g} s: {wanted}")
    return QemuEndedError(f"QEMU ended, and did not answer: {wanted}")


@contextmanager
def listen(folder: Path, name: str = machine.MONITOR) -> Iterator[socket.socket]:
    """Listen, in a folder, for the QEMU of a VM that is about to start."""
    # The address of a socket has 108 bytes; a folder's path may have more.
    descriptor = os.open(folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{descriptor}/{name}")
            listener.listen(1)
            yield listener
    finally:
        os.close(descriptor)
        (folder / name).unlink(missing_ok=True)


@contextmanager
def accept(listener: socket.socket, qemu: process.Process) -> Iterator[Monitor | None]:
    """Speak with a QEMU that starts; None: it ended, or said nothing within ANSWER_TIMEOUT_S.

    How the VM ended tells the caller more than a greeting that did not come.
    """
    ended = os.pidfd_open(qemu.pid)
    try:
        ready, _, _ = select.select([listener.fileno(), ended], [], [], ANSWER_TIMEOUT_S)
    finally:
        os.close(ended)
    if listener.fileno() not in ready:
        yield None
        return
    with ExitStack() as stack:
        try:
            found = stack.enter_context(greet(listener))
        except VmLostError:
            found = None
        yield found


@contextmanager
def greet(listener: socket.socket) -> Iterator[Monitor]:
    """Speak with a QEMU that is there, or that comes.

    Raises:
        VmLostError: It hangs up before it greets.
    """
    connection, _ = listener.accept()
    with connection:
        yield Monitor(connection)


def ignore_shared(monitor: Monitor) -> None:
    """Let a state be without the memory, which lies in a file."""
    capability = {"capability": "x-ignore-shared", "state": True}
    monitor.execute("migrate-set-capabilities", capabilities=[capability])


def restore(monitor: Monitor, state: str) -> None:
    """Let a clone go on from a state; returns when it does.

    Args:
        monitor: Of a VM that waits for one.
        state: The file, as QEMU sees it.

    Raises:
        QemuEndedError: It ended of the state.
        VmLostError: QEMU refuses it, or takes too long.
    """
    ignore_shared(monitor)
    monitor.execute("migrate-incoming", uri=f"file:{state}")
    try:
        monitor.wait_for(("RESUME",), ANSWER_TIMEOUT_S)
    except TimeoutError as error:
        raise VmLostError(f"the VM did not go on within {ANSWER_TIMEOUT_S:g} s") from error


def save(monitor: Monitor, state: str) -> None:
    """Write a VM's state to a file, and stop the VM for good.

    Args:
        monitor: Of a VM whose memory lies in a shared file.
        state: The file, as QEMU sees it.

    Raises:
        VmLostError: QEMU cannot.
    """
    ignore_shared(monitor)
    monitor.execute("migrate", uri=f"file:{state}")
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < deadline:
        status = monitor.execute("query-migrate")
        if status.get("status") == "completed":
            # It may be gone before its answer is.
            with suppress(VmLostError):
                monitor.execute("quit")
            return
        if status.get("status") in ("failed", "cancelled"):
            raise VmLostError(f"QEMU did not save the VM: {status.get('error-desc', status)}")
        time.sleep(POLL_S)
    raise VmLostError(f"QEMU did not save the VM within {ANSWER_TIMEOUT_S:.0f} s")


#: Between two looks at how far QEMU is; it has no event for it that is on by default.
POLL_S = 0.01

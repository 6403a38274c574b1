# SPDX-License-Identifier: GPL-2.0-only
"""A VM whose console is the terminal of a person."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from twinmod.base import cache, commands, process
from twinmod.base.progress import Progress
from twinmod.errors import ConfigError, VmLostError
from twinmod.guest import protocol
from twinmod.vm import boot, devices, machine, monitor, strategy
from twinmod.vm.boot import BootPlan, Setting, ShellWork

STDIN = 0

#: How much of what a VM says is read at once.
CHUNK = 1 << 16


def require_terminal(descriptor: int = STDIN) -> None:
    """Refuse a shell that nobody types into: QEMU does not end when its standard input does.

    Args:
        descriptor: The standard input that QEMU would have.

    Raises:
        ConfigError: It is closed, or a file, a pipe or a device that is not a terminal.
    """
    if not os.isatty(descriptor):
        raise ConfigError(
            "a shell needs a terminal on its standard input",
            hint=f"in a terminal: {commands.render('shell')}",
        )


def run_shell(setting: Setting, work: ShellWork, vm_dir: Path, progress: Progress) -> int:
    """Give a person a VM: a clone where there is a snapshot; return QEMU's status.

    Args:
        setting: What it is made of.
        work: Which modules it has.
        vm_dir: Its own folder; must not exist.
        progress: Told of a clone that does not go on, after which a VM boots.
    """
    # A debugger wants the kernel where its symbols are; clones have it elsewhere.
    if setting.snapshot is not None and not work.gdb:
        status, problem = run_clone(strategy.prepare_vm(setting, work, vm_dir))
        if not problem:
            return status
        progress.note(f"no clone, so the VM boots: {problem}")
        cache.remove_tree(vm_dir)
    plan = strategy.prepare_vm(replace(setting, snapshot=None), work, vm_dir)
    with boot.write_vm_dir(plan):
        return process.run_interactive(plan.command)


def run_clone(plan: BootPlan) -> tuple[int, str]:
    """Run a clone on the caller's terminal.

    Returns:
        QEMU's status, and why the clone did not go on, or "".
    """
    assert plan.origin is not None
    results_dir = plan.vm_dir / "results"
    with (
        boot.write_vm_dir(plan),
        cache.share(plan.origin),
        monitor.listen(results_dir) as monitors,
        monitor.listen(results_dir, machine.EVENTS_SOCKET) as events,
        ThreadPoolExecutor(1) as pool,
    ):
        waking = pool.submit(wake, plan, monitors, events)
        status = process.run_interactive(plan.command)
        # Whoever waits for a QEMU that is gone waits for nothing.
        for listener in (monitors, events):
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
        return status, waking.result()


def wake(plan: BootPlan, monitors: socket.socket, events: socket.socket) -> str:
    """Let a clone go on, and give it its delivery; return why it does not, or "".

    Args:
        plan: The clone.
        monitors: Where its QEMU comes to be told what to do.
        events: Where its port comes.
    """
    assert plan.delivery is not None
    try:
        with monitor.greet(monitors) as told:
            try:
                monitor.restore(told, plan.restored)
                devices.plug(told, plan.devices)
            except VmLostError as error:
                told.execute("quit")
                return error.message
            port, _ = events.accept()
            with port:
                port.sendall(protocol.render_delivery(plan.delivery).encode() + b"\n")
                # What is not read fills the port, and the agent waits.
                while port.recv(CHUNK):
                    pass
    except (OSError, VmLostError):
        # QEMU is gone: its status says how.
        return ""
    return ""

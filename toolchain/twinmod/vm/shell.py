# SPDX-License-Identifier: GPL-2.0-only
"""A VM whose console is the terminal of a person."""

import os
from pathlib import Path

from twinmod.base import commands, process
from twinmod.errors import ConfigError
from twinmod.vm import boot
from twinmod.vm.boot import Setting, ShellWork

STDIN = 0


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


def run_shell(setting: Setting, work: ShellWork, vm_dir: Path) -> int:
    """Boot a VM for a person; return QEMU's status."""
    plan = boot.prepare_boot(setting, work, vm_dir)
    with boot.write_vm_dir(plan):
        return process.run_interactive(plan.command)

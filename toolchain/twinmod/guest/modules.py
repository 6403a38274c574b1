# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading kernel modules."""

from pathlib import Path

from twinmod.guest import door

MODULE_TIMEOUT_S = 20.0


def run_tool(*argv: str) -> str:
    """Run one of kmod's programs; return what it complained of, "" when it did its work."""
    status, output = door.run(argv, MODULE_TIMEOUT_S)
    return "" if status == 0 else output.strip() or f"{argv[0]}: status {status}"


def load(path: str, *parameters: str) -> str:
    """Load a module; return why it did not load, or ""."""
    return run_tool("insmod", path, *parameters)


def is_loaded(name: str) -> bool:
    """Tell whether the kernel has a module."""
    return Path("/sys/module", name).exists()


def unload(name: str) -> str:
    """Unload a module; return why it did not unload, or ""."""
    return run_tool("rmmod", name)

# SPDX-License-Identifier: GPL-2.0-only
"""The verbs `shell` and `gdb`: a VM for a person, and a debugger for it."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from twinmod.base import commands
from twinmod.errors import ExitCode
from twinmod.project.config import Config
from twinmod.vm import boot, shell
from twinmod.vm import gdb as vm_gdb
from twinmod.workspace import Prepared, Workspace


def run_shell(workspace: Workspace, prepared: Prepared, *, gdb: bool = False) -> ExitCode:
    """Give a person a VM with the modules that it can have loaded, and both testers importable.

    Raises:
        TwinmodError: A debugger is wanted that could make nothing of this kernel.
    """
    if gdb:
        vm_gdb.require_debugger(prepared.tree, prepared.chroot)
    products = workspace.build(prepared, workspace.require_labels(prepared.tree))
    setting = workspace.environment(prepared)
    # A debugger knows where things are in a kernel that boots.
    setting = setting if gdb else workspace.find_clones(setting)
    out_dir = workspace.out_dir / "shell"
    shutil.rmtree(out_dir, ignore_errors=True)
    work = boot.ShellWork(products=products, gdb=gdb)
    with ExitStack() as stack:
        if gdb:
            stack.enter_context(offer_gdb(workspace, prepared, out_dir))
        status = shell.run_shell(setting, work, out_dir, workspace.progress)
    return ExitCode.PASSED if status == 0 else ExitCode.VM_LOST


@contextmanager
def offer_gdb(
    workspace: Workspace, prepared: Prepared, vm_dir: Path, *, unborn: bool = False
) -> Iterator[None]:
    """Let the verb `gdb` find the VM of a folder until the context is left; see gdb.Sight."""
    sight = vm_gdb.Sight(
        tree=prepared.tree,
        chroot=prepared.chroot,
        socket_dir=vm_dir / "results",
        builds=workspace.prepare_builds(prepared.tree, workspace.find_labels(prepared.tree)),
        unborn=unborn,
    )
    record_path = vm_gdb.write_record(workspace.config.results_dir / "gdb", vm_gdb.plan_gdb(sight))
    workspace.progress.note(f"in another terminal: {commands.render('gdb')}")
    try:
        yield
    finally:
        record_path.unlink()


def run_gdb(config: Config, arguments: tuple[str, ...]) -> ExitCode:
    """Give a person gdb for the VM that their shell has booted."""
    status = vm_gdb.run(config.results_dir / "gdb", arguments)
    return ExitCode.PASSED if status == 0 else ExitCode.TESTS_FAILED

# SPDX-License-Identifier: GPL-2.0-only
"""The verbs `shell` and `gdb`: a VM for a person, and a debugger for it."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from twinmod import workspace
from twinmod.base import commands
from twinmod.base.progress import Progress
from twinmod.errors import ExitCode
from twinmod.project.config import Config
from twinmod.project.model import LANGUAGES
from twinmod.vm import boot, shell
from twinmod.vm import gdb as vm_gdb
from twinmod.workspace import Prepared


def run_shell(
    config: Config, prepared: Prepared, progress: Progress, *, gdb: bool = False
) -> ExitCode:
    """Give a person a VM with the modules that it can have loaded, and both testers importable.

    Raises:
        TwinmodError: A debugger is wanted that could make nothing of this kernel.
    """
    if gdb:
        vm_gdb.require_debugger(prepared.tree, prepared.chroot)
    languages = workspace.require_languages(config, prepared.tree, LANGUAGES, progress)
    products = workspace.run_build(config, prepared, languages, progress)
    setting = workspace.prepare_setting(config, prepared, progress)
    out_dir = config.out_dir / "shell"
    shutil.rmtree(out_dir, ignore_errors=True)
    work = boot.ShellWork(products=products, gdb=gdb)
    with ExitStack() as stack:
        if gdb:
            stack.enter_context(offer_gdb(config, prepared, out_dir, progress))
        status = shell.run_shell(setting, work, out_dir)
    return ExitCode.PASSED if status == 0 else ExitCode.VM_LOST


@contextmanager
def offer_gdb(
    config: Config, prepared: Prepared, vm_dir: Path, progress: Progress, *, unborn: bool = False
) -> Iterator[None]:
    """Let the verb `gdb` find the VM of a folder until the context is left; see gdb.Sight."""
    sight = vm_gdb.Sight(
        tree=prepared.tree,
        chroot=prepared.chroot,
        socket_dir=vm_dir / "results",
        builds=workspace.prepare_builds(
            config, prepared.tree, workspace.find_languages(prepared.tree)
        ),
        unborn=unborn,
    )
    record_path = vm_gdb.write_record(config.out_dir / "gdb", vm_gdb.plan_gdb(sight))
    progress.note(f"in another terminal: {commands.render('gdb')}")
    try:
        yield
    finally:
        record_path.unlink()


def run_gdb(config: Config, arguments: tuple[str, ...]) -> ExitCode:
    """Give a person gdb for the VM that their shell has booted."""
    status = vm_gdb.run(config.out_dir / "gdb", arguments)
    return ExitCode.PASSED if status == 0 else ExitCode.TESTS_FAILED

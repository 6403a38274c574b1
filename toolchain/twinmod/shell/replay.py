# SPDX-License-Identifier: GPL-2.0-only
"""The verb `replay`: a recorded VM again, instruction for instruction."""

import shutil
from contextlib import ExitStack

from twinmod.cells import decode, outcomes, transcript
from twinmod.guest.faults import KernelFault
from twinmod.shell import run
from twinmod.vm import console as vm_console
from twinmod.vm import gdb as vm_gdb
from twinmod.vm import recording, results, session
from twinmod.workspace import Prepared, Workspace


def run_recording(
    workspace: Workspace, prepared: Prepared, recorded: recording.Recording, *, gdb: bool
) -> tuple[recording.Comparison, tuple[KernelFault, ...]]:
    """Repeat a VM that was recorded; return how it compares, and the faults that it ended with.

    Raises:
        ConfigError: It ran on something else than what is there now.
        TwinmodError: A debugger is wanted that could make nothing of this kernel.
    """
    config, progress = workspace.config, workspace.progress
    platform = recording.Platform(tree=prepared.tree, chroot=prepared.chroot, vm=config.vm)
    recording.require_same(recorded, platform)
    if gdb:
        vm_gdb.require_debugger(prepared.tree, prepared.chroot)
    products = workspace.build(prepared, workspace.require_labels(prepared.tree))
    ran = recorded.document.modules
    changed = [p.module for p in products if ran.get(p.module, p.sha256) != p.sha256]
    if changed:
        progress.note(f"{' and '.join(changed)} changed since: places in it are of what it is now")
    out_dir = workspace.out_dir / "replay"
    shutil.rmtree(out_dir, ignore_errors=True)
    plan = recording.prepare_replay(recorded, platform, out_dir, gdb=gdb)
    with ExitStack() as stack:
        stack.enter_context(progress.phase(f"replay of {recorded.vm_dir.name}"))
        if gdb:
            stack.enter_context(run.offer_gdb(workspace, prepared, out_dir, unborn=True))
        with session.run_vm(plan, session.Watch(progress)) as vm:
            pass
    by_programs = outcomes.parse_program_lines(transcript.parse_events(vm.lines))
    console = vm_console.read_console(out_dir)
    found, _ = results.find_faults(console, products, out_dir, by_programs)
    decoded = decode.decode_faults(found, products, prepared.tree.compilers)
    return recording.read_comparison(recorded.vm_dir, out_dir), decoded

# SPDX-License-Identifier: GPL-2.0-only
"""gdb sees the kernel, its modules and their sources where they were compiled."""

from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base.sandbox import Chroot
from twinmod.builds import build as builds_build
from twinmod.errors import ConfigError, MissingToolError
from twinmod.kernels.model import KernelTree
from twinmod.project.model import ModuleSpec
from twinmod.vm import gdb


@pytest.fixture
def built(tree: KernelTree, tmp_path: Path) -> KernelTree:
    """A kernel with what gdb reads."""
    (tmp_path / "vmlinux").write_text("")
    # As make leaves it: a link that leads nowhere outside the chroot.
    (tmp_path / gdb.SCRIPTS).symlink_to("/twinmod/linux/scripts/gdb/vmlinux-gdb.py")
    return replace(tree, build_dir=tmp_path)


def test_a_kernel_without_debug_information_is_refused(tree: KernelTree, root: Chroot) -> None:
    with pytest.raises(ConfigError, match=r"no vmlinux and no vmlinux-gdb\.py"):
        gdb.require_debugger(tree, root)


def test_a_chroot_without_gdb_is_refused_with_what_to_do(built: KernelTree, root: Chroot) -> None:
    with pytest.raises(MissingToolError, match="chroot trixie has no gdb") as caught:
        gdb.require_debugger(built, root)
    assert caught.value.hint == 'add "gdb" to `packages` of the root trixie in the configuration'


def test_gdb_has_the_symbols_of_the_kernel_and_of_each_module(
    c_module: ModuleSpec, rust_module: ModuleSpec, tree: KernelTree, root: Chroot
) -> None:
    builds = tuple(
        builds_build.plan_build(module, tree, (), Path("/out"))
        for module in (c_module, rust_module)
    )
    sight = gdb.Sight(tree=tree, chroot=root, builds=builds, socket_dir=Path("/out/shell/results"))
    line = " ".join(gdb.plan_gdb(sight))
    assert "gdb -q" in line
    assert "target remote /twinmod/run/results/gdb.sock" in line
    modules = "/twinmod/module/mdriver_c /twinmod/linux/samples/rust/mdriver_rust"
    assert f"gdb.sock -ex lx-symbols {modules} -ex" in line
    for source in (tree.source_dir, tree.build_dir, *(build.stage_dir for build in builds)):
        assert f"bind {source} /twinmod/" in line


def test_gdb_goes_on_to_the_begin_of_a_kernel_that_it_could_not_see_yet(
    tree: KernelTree, root: Chroot
) -> None:
    sight = gdb.Sight(
        tree=tree, chroot=root, builds=(), socket_dir=Path("/out/replay/results"), unborn=True
    )
    line = " ".join(gdb.plan_gdb(sight))
    assert "gdb.sock -ex hbreak start_kernel -ex continue -ex delete -ex lx-symbols" in line


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"argv": [1]}', '{"argv": "gdb"}', "[" * 100_000],
    ids=lambda text: text[:20],
)
def test_a_record_that_is_damaged_leads_to_no_vm(text: str, tmp_path: Path) -> None:
    (tmp_path / gdb.RECORD).write_text(text)
    with pytest.raises(ConfigError, match="there is no VM to debug"):
        gdb.run(tmp_path, ())


def test_gdb_without_a_vm_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no VM to debug") as caught:
        gdb.run(tmp_path, ())
    assert "--gdb" in caught.value.hint


def test_how_gdb_reaches_a_vm_is_kept_until_the_vm_is_gone(tmp_path: Path) -> None:
    path = gdb.write_record(tmp_path, ("true",))
    assert gdb.run(tmp_path, ("x",)) == 0
    path.unlink()
    with pytest.raises(ConfigError):
        gdb.run(tmp_path, ())

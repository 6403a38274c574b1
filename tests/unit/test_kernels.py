# SPDX-License-Identifier: GPL-2.0-only
"""Which of the three kinds a configured kernel is, and what all kinds have in common."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from twinmod.base import templates
from twinmod.base.sandbox import Chroot
from twinmod.kernels import find, roots
from twinmod.kernels.debug import DebugKernel
from twinmod.kernels.local import LocalKernel
from twinmod.kernels.model import Kernel, Origin
from twinmod.kernels.stock import StockKernel
from twinmod.project import config as project_config
from twinmod.project.config import Config
from twinmod.project.model import KernelSpec


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """This project, with a tree of a person's own."""
    config = project_config.read_config(Path(__file__).parents[2])
    mine = KernelSpec(
        name="mine",
        chroot="sid",
        suite="",
        flavour="",
        tree_dir=tmp_path / "linux",
        build_dir=tmp_path / "out",
    )
    return structs.replace(config, kernels=(*config.kernels, mine))


def choose(config: Config, name: str) -> Kernel:
    return find.choose_kernel(project_config.select_kernel(config, name))


@pytest.mark.usefixtures("cache_dir")
@pytest.mark.parametrize(
    ("name", "kind", "origin"),
    [
        ("trixie", StockKernel, Origin.STOCK),
        ("kasan", DebugKernel, Origin.BUILT),
        ("mine", LocalKernel, Origin.TREE),
    ],
)
def test_a_kernel_is_of_the_kind_that_its_table_describes(
    config: Config, name: str, kind: type[Kernel], origin: Origin
) -> None:
    kernel = choose(config, name)
    assert type(kernel) is kind
    assert (kernel.origin, kernel.spec.name) == (origin, name)
    assert kernel.chroot.name == kernel.spec.chroot


def test_a_kernel_and_its_source_each_have_their_own_chroot(config: Config) -> None:
    asked: list[str] = []

    def find_root(one: Config) -> Chroot:
        asked.append(one.kernel.name)
        return roots.plan_chroot(one.chroot, {})

    kernel = find.choose_kernel(project_config.select_kernel(config, "kasan"), find_root)
    assert isinstance(kernel, DebugKernel)
    assert (kernel.chroot.name, kernel.base.chroot.name) == ("trixie-llvm", "trixie")
    # Its own chroot is the first one that is made.
    assert asked == ["kasan", "trixie-backports"]


@pytest.mark.parametrize(
    ("configured", "used"),
    [("", "http://mirror.example/host"), ("http://mirror.example/own",) * 2],
)
def test_packages_come_from_where_the_chroots_did_unless_a_mirror_is_configured(
    config: Config, configured: str, used: str
) -> None:
    def find_root(one: Config) -> Chroot:
        return roots.plan_chroot(one.chroot, {"mirror": "http://mirror.example/host"})

    kernel = find.choose_kernel(structs.replace(config, mirror=configured), find_root)
    assert isinstance(kernel, StockKernel)
    assert kernel.mirror == used


@pytest.mark.usefixtures("cache_dir")
def test_what_a_person_chose_is_known_before_a_kernel_is_there(
    config: Config, tmp_path: Path
) -> None:
    assert choose(config, "trixie").read_chosen_options() == {}
    assert choose(config, "enforcing").read_chosen_options() == {
        "CONFIG_MODULE_SIG": "y",
        "CONFIG_MODULE_SIG_SHA256": "y",
        "CONFIG_MODULE_SIG_ALL": "n",
    }
    mine = choose(config, "mine")
    assert mine.read_chosen_options() == {}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.config").write_text("CONFIG_MODULE_SIG=y\n")
    assert mine.read_chosen_options() == {"CONFIG_MODULE_SIG": "y"}


# -- a fourth kind ----------------------------------------------------------------------------


def find_loose_decisions(text: str) -> Iterator[str]:
    """Yield what decides by an origin, and goes on without a word when there is another one."""
    tree = ast.parse(text if "Origin." in text else "")
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and "Origin." in ast.unparse(node):
            yield ast.unparse(node)
        if isinstance(node, ast.Match) and "Origin." in ast.unparse(node):
            last = node.cases[-1]
            if "assert_never(" not in ast.unparse(last):
                yield f"case {ast.unparse(last.pattern)}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("if tree.origin == Origin.STOCK: pass", ["tree.origin == Origin.STOCK"]),
        ("own = origin in (Origin.TREE,)", ["origin in (Origin.TREE,)"]),
        ("match origin:\n case Origin.TREE: a()\n case _: b()", ["case _"]),
        ("match origin:\n case Origin.TREE: a()\n case _: assert_never(origin)", []),
        ("origin = Origin.TREE", []),
    ],
)
def test_a_decision_that_leaves_out_an_origin_is_found(text: str, found: list[str]) -> None:
    assert list(find_loose_decisions(text)) == found


def test_mypy_sees_where_code_decides_by_the_origin_of_a_kernel() -> None:
    """With match and assert_never, a new member is an error at each place that must know it."""
    paths = sorted(templates.PACKAGE_DIR.rglob("*.py"))
    found = {path.name: list(find_loose_decisions(path.read_text())) for path in paths}
    assert {name: places for name, places in found.items() if places} == {}

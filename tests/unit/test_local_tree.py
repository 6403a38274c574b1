# SPDX-License-Identifier: GPL-2.0-only
"""A person's own tree: what of it is refused and why, and when it is looked at again."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.errors import ConfigError, MissingToolError, TwinmodError
from twinmod.kernels import find, kconfig, local
from twinmod.kernels.local import LocalKernel
from twinmod.project.model import KernelSpec

MakeElf = Callable[[dict[str, str], tuple[str, ...], tuple[str, ...]], bytes]

CC = "gcc (Debian 14.2.0-19) 14.2.0"

RUSTC = "rustc 1.85.1 (4eb161250 2025-03-15) (built from a source tarball)"

RELEASE = "7.3.4-mine"

VERSION = "#3 SMP PREEMPT_LAZY Tue Nov 24 11:18:25 UTC 2026"

SYMBOL = "_RNvCs3S5sVLmWzbK_6kernel13current_raw"

#: As a built image has them: the one for /proc comes first and is a format.
BANNERS = (
    "Linux version %s (me@here) ({cc}, GNU ld (GNU Binutils for Debian) 2.44) %s\n\0"
    "Linux version {release} (me@here) ({cc}, GNU ld (GNU Binutils for Debian) 2.44) {version}\n\0"
)


@dataclass
class Own:
    """A tree that was built with O=, small enough to make here."""

    spec: KernelSpec
    source: Path
    build: Path
    config: dict[str, str]
    # (where, program) and what its --version prints there.
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    # Where compilers were asked for.
    asked: list[str] = field(default_factory=list)

    def plan_kernel(self, root: Chroot) -> LocalKernel:
        return LocalKernel(spec=self.spec, chroot=root)

    def write(self, name: str, content: str | bytes) -> None:
        path = self.build / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def write_config(self, *names: str) -> None:
        """Write the configuration as a person has it, and as make built it."""
        text = "".join(f"{name}={value}\n" for name, value in self.config.items())
        for name in names or (".config", "include/config/auto.conf"):
            self.write(name, text)

    def list_files(self) -> dict[Path, tuple[int, bytes]]:
        """Return all files of the tree, with time and content."""
        folder = self.source.parent
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def own(tmp_path: Path, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch) -> Own:
    source, build = tmp_path / "own/linux", tmp_path / "own/build"
    config = dict.fromkeys((*kconfig.VM_BUILTINS, "CONFIG_RUST"), "y") | {
        option: "m" for _, option in kconfig.VM_MODULES
    }
    config |= {"CONFIG_CC_VERSION_TEXT": CC, "CONFIG_RUSTC_VERSION_TEXT": RUSTC}
    spec = KernelSpec(
        name="mine", chroot="trixie", suite="", flavour="", tree_dir=source, build_dir=build
    )
    found = Own(spec=spec, source=source, build=build, config=config)
    for name in local.SOURCES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("# Linux\n")
    for name in (*local.OUTPUTS, *local.RUST_OUTPUTS):
        found.write(name, name)
    found.write_config()
    found.write("include/config/kernel.release", f"{RELEASE}\n")
    found.write("vmlinux", BANNERS.format(cc=CC, release=RELEASE, version=VERSION))
    found.write("Module.symvers", f"0x1\t{SYMBOL}\tvmlinux\tEXPORT_SYMBOL_GPL\t\n")
    found.write("rust/exports_kernel_generated.h", f"EXPORT_SYMBOL_RUST_GPL({SYMBOL});\n")
    needs = {
        "net/9p/9pnet": "",
        "net/9p/9pnet_virtio": "9pnet",
        "fs/netfs/netfs": "",
        "fs/9p/9p": "9pnet,netfs",
        "fs/overlayfs/overlay": "",
        "fs/ext4/ext4": "",
    }
    for name, depends in needs.items():
        found.write(f"{name}.ko", make_elf({"depends": depends}, (), ()))

    def read_versions(root: Chroot, programs: tuple[str, ...]) -> tuple[str, ...]:
        found.asked.append(root.name)
        return tuple(found.versions.get((root.name, program), "") for program in programs)

    monkeypatch.setattr(local, "read_versions", read_versions)
    found.versions = {("trixie", "gcc"): CC, ("trixie", "rustc"): RUSTC}
    return found


@pytest.fixture(autouse=True)
def _own_cache(cache_dir: Path) -> None:
    """No test looks into the user's cache."""


def refuse(own: Own, root: Chroot, kind: type[TwinmodError]) -> TwinmodError:
    with pytest.raises(kind) as caught:
        own.plan_kernel(root).find()
    assert type(caught.value) is kind
    return caught.value


# -- a good one -------------------------------------------------------------------------------


def test_a_built_tree_is_a_kernel(own: Own, root: Chroot, progress: Progress) -> None:
    before = own.list_files()
    tree = own.plan_kernel(root).ensure(progress)
    assert (tree.name, tree.release, tree.version) == ("mine", RELEASE, VERSION)
    assert (tree.origin, tree.suite, tree.in_place) == ("tree", "", False)
    assert (tree.source_dir, tree.build_dir) == (own.source, own.build)
    assert tree.image_path == own.build / "vmlinux"
    assert [str(path.relative_to(own.build)) for path in tree.vm_module_paths] == [
        "net/9p/9pnet.ko",
        "net/9p/9pnet_virtio.ko",
        "fs/netfs/netfs.ko",
        "fs/9p/9p.ko",
        "fs/overlayfs/overlay.ko",
    ]
    assert (tree.make_flags, tree.compilers) == (("CC=gcc",), root)
    assert (tree.proof.rustc, tree.proof.checked_symbols, tree.proof.equal_layouts) == (RUSTC, 1, 0)
    assert tree.proof.uncompared == local.UNCOMPARED
    assert "stock" not in tree.proof.reference
    assert own.list_files() == before, "something was written to the tree"


def test_what_is_built_in_is_not_loaded(own: Own, root: Chroot) -> None:
    own.config |= {option: "y" for _, option in kconfig.VM_MODULES}
    own.write_config()
    assert own.plan_kernel(root).find().vm_module_paths == ()


def test_a_tree_without_rust_needs_neither_rustc_nor_crates(own: Own, root: Chroot) -> None:
    del own.config["CONFIG_RUST"], own.versions["trixie", "rustc"]
    own.write_config()
    for path in (own.build / "rust").iterdir():
        path.unlink()
    assert own.plan_kernel(root).find().proof.rustc == ""


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("name", local.SOURCES)
def test_what_is_no_linux_tree_is_refused(own: Own, root: Chroot, name: str) -> None:
    (own.source / name).unlink()
    error = refuse(own, root, ConfigError)
    assert error.message.endswith(f"is no Linux tree: it has no {name}")
    assert error.facts == (("folder", str(own.source)),)


def test_a_tree_that_was_not_configured_is_refused(own: Own, root: Chroot) -> None:
    (own.build / ".config").unlink()
    error = refuse(own, root, MissingToolError)
    assert "has no .config" in error.message
    assert error.hint == f"make -C {own.source} O={own.build} olddefconfig"


def test_a_configuration_without_a_compiler_is_refused(own: Own, root: Chroot) -> None:
    own.write(".config", "CONFIG_64BIT=y\n")
    assert "names no compiler" in refuse(own, root, MissingToolError).message


def test_all_that_a_vm_lacks_is_in_one_error(own: Own, root: Chroot) -> None:
    del own.config["CONFIG_PVH"], own.config["CONFIG_9P_FS"]
    own.config["CONFIG_CMDLINE_OVERRIDE"] = "y"
    own.write_config(".config")
    error = refuse(own, root, ConfigError)
    assert error.message.endswith("it lacks CONFIG_PVH, CONFIG_9P_FS, CONFIG_CMDLINE_OVERRIDE=n")
    assert "-e CONFIG_PVH -e CONFIG_9P_FS -d CONFIG_CMDLINE_OVERRIDE && make" in error.hint


@pytest.mark.parametrize("option", kconfig.ENFORCING)
def test_a_tree_that_takes_signed_modules_alone_is_a_kernel_too(
    own: Own, root: Chroot, option: str
) -> None:
    own.config[option] = "y"
    own.write_config()
    assert own.plan_kernel(root).find().release == RELEASE


@pytest.mark.parametrize("name", [*local.OUTPUTS, *local.RUST_OUTPUTS, "9p.ko", "overlay.ko"])
def test_what_a_build_did_not_leave_is_named(own: Own, root: Chroot, name: str) -> None:
    (path,) = own.build.rglob(name.rpartition("/")[2])
    path.unlink()
    error = refuse(own, root, MissingToolError)
    assert error.message.endswith(f"is not built: {name} is not there")
    assert error.hint == f"make -C {own.source} O={own.build} CC=gcc -j$(nproc)"


def test_a_configuration_that_changed_after_the_build_is_refused(own: Own, root: Chroot) -> None:
    own.config["CONFIG_PREEMPT"] = "y"
    own.config["CONFIG_9P_FS"] = "y"
    own.write_config(".config")
    error = refuse(own, root, MissingToolError)
    assert "configured again after its last build" in error.message
    assert dict(error.facts)["changed"].splitlines() == [
        "CONFIG_9P_FS: m was built, now y",
        "CONFIG_PREEMPT: n was built, now y",
    ]


@pytest.mark.parametrize(
    ("cc", "release"), [(CC, "7.3.3"), ("gcc (Debian 12.2.0-14) 12.2.0", RELEASE)]
)
def test_an_image_of_an_older_build_is_refused(
    own: Own, root: Chroot, cc: str, release: str
) -> None:
    own.write("vmlinux", BANNERS.format(cc=cc, release=release, version=VERSION))
    error = refuse(own, root, MissingToolError)
    assert "the image" in error.message
    assert dict(error.facts)["vmlinux"].startswith(f"{release}, {cc}")


@pytest.mark.parametrize("image", [b"", b"Linux version 7.3.4 (cut", b"\x7fELF"])
def test_an_image_that_says_nothing_of_itself_is_refused(
    own: Own, root: Chroot, image: bytes
) -> None:
    own.write("vmlinux", image)
    assert "the image" in refuse(own, root, MissingToolError).message


@pytest.mark.parametrize("exports", ["EXPORT_SYMBOL_RUST_GPL(_RNvCsOther_6kernel3foo);\n", ""])
def test_crates_that_are_not_the_images_are_refused(own: Own, root: Chroot, exports: str) -> None:
    own.write("rust/exports_kernel_generated.h", exports)
    assert "the Rust crates" in refuse(own, root, MissingToolError).message


# -- compilers --------------------------------------------------------------------------------


def test_the_hosts_compilers_are_taken_when_the_chroots_are_others(own: Own, root: Chroot) -> None:
    own.versions = {
        ("trixie", "gcc"): "gcc (Debian 15.1) 15.1",
        ("trixie", "rustc"): RUSTC,
        ("this host", "gcc"): CC,
        ("this host", "rustc"): RUSTC,
    }
    tree = own.plan_kernel(root).find()
    assert tree.compilers == local.read_host()
    assert tree.make_flags == ("CC=gcc",)


def test_the_host_is_not_asked_when_the_chroot_has_them(own: Own, root: Chroot) -> None:
    own.plan_kernel(root).find()
    assert own.asked == ["trixie"]


@pytest.mark.parametrize("program", ["gcc", "rustc"])
def test_compilers_of_two_places_do_not_make_a_pair(own: Own, root: Chroot, program: str) -> None:
    own.versions[("this host", program)] = own.versions.pop(("trixie", program))
    error = refuse(own, root, MissingToolError)
    assert error.facts[:2] == (("C compiler wanted", CC), ("rustc wanted", RUSTC))
    assert ("trixie", f"{program}: none") in error.facts
    assert ("this host", f"{program}: {CC if program == 'gcc' else RUSTC}") in error.facts
    assert error.hint


def test_a_kernel_of_clang_is_told_so(own: Own, root: Chroot) -> None:
    text = "Debian clang version 19.1.7 (3+b1)"
    own.config |= {
        "CONFIG_CC_VERSION_TEXT": text,
        "CONFIG_CC_IS_CLANG": "y",
        "CONFIG_LD_IS_LLD": "y",
        "CONFIG_CLANG_VERSION": "190107",
    }
    own.write_config()
    own.write("vmlinux", BANNERS.format(cc=text, release=RELEASE, version=VERSION))
    own.versions[("trixie", "clang-19")] = text
    assert own.plan_kernel(root).find().make_flags == ("LLVM=-19",)


def test_a_version_is_found_whatever_the_shell_says_beside_it() -> None:
    output = f"version of gcc: {CC}\nversion of rustc: \ngcc: warning: no locale\n"
    assert local.parse_versions(output, ("rustc", "gcc", "clang")) == ("", CC, "")


def test_the_host_as_a_root_leaves_room_beside_what_it_has() -> None:
    host = local.read_host()
    names = {name for name, _ in host.top}
    assert "usr" in names
    assert not names & {"dev", "proc", "tmp", "run", "twinmod"}
    assert dict(host.environment)["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("output", "toolchain"),
    [
        ("stable-x86_64-unknown-linux-gnu (default)\n", ""),
        (
            "nightly-x86_64-unknown-linux-gnu (directory override for '/home/me/linux')\n",
            "nightly-x86_64-unknown-linux-gnu",
        ),
        (
            "1.85.0-x86_64-unknown-linux-gnu (overridden by '/a (b)/rust-toolchain.toml')\n",
            "1.85.0-x86_64-unknown-linux-gnu",
        ),
        ("/opt/rust (overridden by environment variable RUSTUP_TOOLCHAIN)\n", "/opt/rust"),
        ("info: syncing (all)\nmine (directory override for '/x')\n", "mine"),
        ("error: no active toolchain\n", ""),
        ("", ""),
    ],
)
def test_the_toolchain_that_rustup_names_is_taken_unless_it_is_the_default(
    output: str, toolchain: str
) -> None:
    assert local.parse_toolchain(output) == toolchain


@pytest.mark.parametrize("which", ["source", "build"])
def test_a_toolchain_that_was_chosen_for_a_tree_is_found_and_remembered(
    own: Own, root: Chroot, progress: Progress, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    folder = own.source if which == "source" else own.build
    monkeypatch.setattr(local, "read_toolchain", lambda path: "mine" if path == folder else "")
    own.versions = {
        ("this host", "gcc"): CC,
        ("this host", "rustc"): "rustc 1.90.0",
        ("this host, mine", "gcc"): CC,
        ("this host, mine", "rustc"): RUSTC,
    }
    tree = own.plan_kernel(root).ensure(progress)
    assert dict(tree.compilers.environment)["RUSTUP_TOOLCHAIN"] == "mine"
    monkeypatch.setattr(local, "read_toolchain", lambda path: "")
    own.asked.clear()
    assert own.plan_kernel(root).ensure(progress) == tree
    assert own.asked == ["this host, mine"]


def test_rustup_is_asked_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rustup = tmp_path / "bin/rustup"
    rustup.parent.mkdir()
    rustup.write_text('#!/bin/sh\necho "$PWD $RUSTUP_HOME $RUSTUP_AUTO_INSTALL (override for x)"\n')
    rustup.chmod(0o755)
    monkeypatch.setenv("PATH", f"{rustup.parent}:/usr/bin:/bin")
    monkeypatch.setenv("RUSTUP_HOME", "/rustup")
    folder = tmp_path / "linux"
    folder.mkdir()
    assert local.read_toolchain(folder) == f"{folder} /rustup 0"
    rustup.write_text("#!/bin/sh\nexit 1\n")
    assert local.read_toolchain(folder) == ""


def test_without_rustc_nobody_asks_rustup(
    own: Own, root: Chroot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "read_toolchain", lambda path: pytest.fail("asked"))
    del own.config["CONFIG_RUST"]
    roots = list(local.list_roots(own.spec, own.config, root))
    assert [found.name for found in roots] == ["trixie", "this host"]


def test_where_no_rustc_fits_the_hint_names_how_to_choose_one(own: Own, root: Chroot) -> None:
    own.versions["this host", "gcc"] = CC
    del own.versions["trixie", "rustc"]
    hint = refuse(own, root, MissingToolError).hint
    assert f"rustup override set --path {own.build} TOOLCHAIN" in hint
    del own.versions["trixie", "gcc"], own.config["CONFIG_RUST"], own.versions["this host", "gcc"]
    own.write_config()
    assert "rustup" not in refuse(own, root, MissingToolError).hint


def test_what_stands_in_for_a_compiler_only_starts_it() -> None:
    settings = dict(local.read_host().environment)
    assert settings["CCACHE_DISABLE"] == "1"
    assert (settings["DISTCC_HOSTS"], settings["ICECC"]) == ("localhost", "disable")


# -- compilers in folders that a sandbox has of its own ----------------------------------------


@pytest.fixture
def hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /run."""
    path = tmp_path / "run"
    path.mkdir()
    monkeypatch.setattr(local, "HIDDEN_DIRS", (path,))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """The settings of a person whose compilers are elsewhere."""
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    return {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path / 'bin'}:relative:"}


def test_nothing_of_a_hidden_folder_is_kept_that_leads_to_no_compiler(
    hidden: Path, settings: dict[str, str]
) -> None:
    (hidden / "docker.sock").write_text("")
    (Path(settings["HOME"]) / "socket").symlink_to(hidden / "docker.sock")
    assert local.find_kept(settings) == ()


def test_a_folder_of_path_below_a_hidden_one_is_kept_whole(
    hidden: Path, settings: dict[str, str]
) -> None:
    (hidden / "gcc-15/usr/bin").mkdir(parents=True)
    settings["PATH"] += f":{hidden / 'gcc-15/usr/bin'}:{hidden / 'gone/bin'}"
    assert local.find_kept(settings) == (hidden / "gcc-15",)


def test_a_link_below_a_hidden_folder_is_kept_as_on_nixos(
    hidden: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "nix/store/system/sw/bin").mkdir(parents=True)
    (hidden / "current-system").symlink_to(tmp_path / "nix/store/system")
    settings["PATH"] += f":{hidden / 'current-system/sw/bin'}"
    assert local.find_kept(settings) == (hidden / "current-system",)


@pytest.mark.parametrize("relative", [True, False])
def test_a_program_that_links_to_a_hidden_folder_is_kept_with_all_links_on_the_way(
    hidden: Path, settings: dict[str, str], tmp_path: Path, relative: bool
) -> None:
    for name in ("first", "second", "unused"):
        (hidden / name / "bin").mkdir(parents=True)
    (hidden / "second/bin/gcc").write_text("")
    (hidden / "first/bin/gcc").symlink_to("../../second/bin/gcc")
    target = hidden / "first/bin/gcc"
    link = Path("..") / target.relative_to(tmp_path) if relative else target
    (tmp_path / "bin/gcc").symlink_to(link)
    assert local.find_kept(settings) == (hidden / "first", hidden / "second")


@pytest.mark.parametrize("name", ["home/.rustup", "home/.cargo", "rustup/toolchains/mine"])
def test_a_toolchain_of_rustup_in_a_hidden_folder_is_kept(
    hidden: Path, settings: dict[str, str], tmp_path: Path, name: str
) -> None:
    (hidden / "rust/bin").mkdir(parents=True)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to(hidden / "rust")
    if name.startswith("rustup"):
        settings["RUSTUP_HOME"] = str(tmp_path / "rustup")
    assert local.find_kept(settings) == (hidden / "rust",)


def test_links_that_go_in_circles_or_nowhere_are_passed_over(
    hidden: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bin/a").symlink_to("b")
    (tmp_path / "bin/b").symlink_to("a")
    (tmp_path / "bin/gone").symlink_to(hidden / "gone/bin/gcc")
    assert local.find_kept(settings) == ()


# -- what is remembered -----------------------------------------------------------------------


def test_a_tree_is_looked_at_once(own: Own, root: Chroot, progress: Progress) -> None:
    first = own.plan_kernel(root).ensure(progress)
    assert own.plan_kernel(root).ensure(progress) == first
    assert own.plan_kernel(root).find() == first
    assert own.asked == ["trixie"]


def test_to_find_a_tree_leaves_nothing_behind(own: Own, root: Chroot, cache_dir: Path) -> None:
    own.plan_kernel(root).find()
    assert not cache_dir.exists()


@pytest.mark.parametrize(
    "name",
    [
        "vmlinux",
        "Module.symvers",
        "rust/libkernel.rmeta",
        "fs/netfs/netfs.ko",
        "scripts/mod/modpost",
    ],
)
def test_a_tree_that_was_built_again_is_another_kernel(
    own: Own, root: Chroot, progress: Progress, name: str
) -> None:
    first = own.plan_kernel(root).ensure(progress)
    with (own.build / name).open("ab") as file:
        file.write(b"\n")
    second = own.plan_kernel(root).ensure(progress)
    assert second.key != first.key
    assert own.plan_kernel(root).ensure(progress) == second


def test_a_tree_with_new_times_alone_is_the_same_kernel(
    own: Own, root: Chroot, progress: Progress
) -> None:
    first = own.plan_kernel(root).ensure(progress)
    os.utime(own.build / "vmlinux", ns=(1, 1))
    assert own.plan_kernel(root).ensure(progress) == first
    assert len(own.asked) == 2, "it was not looked at again"


def test_a_tree_that_broke_is_refused_although_it_is_remembered(
    own: Own, root: Chroot, progress: Progress
) -> None:
    own.plan_kernel(root).ensure(progress)
    (own.build / "Module.symvers").unlink()
    assert "is not built" in refuse(own, root, MissingToolError).message


def test_the_hosts_compilers_are_asked_for_their_version_each_time(
    own: Own, root: Chroot, progress: Progress
) -> None:
    own.versions = {("this host", name): text for (_, name), text in own.versions.items()}
    own.plan_kernel(root).ensure(progress)
    own.versions[("this host", "gcc")] = "gcc (Debian 14.3.0-1) 14.3.0"
    assert "compilers" in refuse(own, root, MissingToolError).message


def test_another_tree_build_or_chroot_is_remembered_elsewhere(own: Own, root: Chroot) -> None:
    kernel = own.plan_kernel(root)
    keys = {
        kernel.key,
        replace(kernel, chroot=replace(root, key="trixie-2")).key,
        replace(kernel, spec=replace(own.spec, build_dir=own.source)).key,
        replace(kernel, spec=replace(own.spec, tree_dir=own.build)).key,
    }
    assert len(keys) == 4


# -- what the doctor and the matrix say of it -------------------------------------------------


def test_a_tree_that_cannot_be_used_is_the_persons_to_mend(own: Own, root: Chroot) -> None:
    (own.build / "vmlinux").unlink()
    kernel = own.plan_kernel(root)
    tree, error = find.look_for_tree(kernel, has_root=True)
    assert tree is None
    (check,) = find.check_tree(kernel, tree, error)
    assert (check.ok, check.required) == (False, True)
    assert "vmlinux is not there" in check.found
    assert check.fix.startswith("make -C ")


def test_without_a_chroot_a_tree_is_not_set_up(own: Own, root: Chroot) -> None:
    tree, error = find.look_for_tree(own.plan_kernel(root), has_root=False)
    assert tree is None
    assert (error.message, error.hint) == ("not set up", "twinmod setup --kernel mine")

# SPDX-License-Identifier: GPL-2.0-only
"""dkms.conf and the script that it asks, run by bash and sh against folders made here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.archives import File
from twinmod.base.process import Command
from twinmod.release import packages
from twinmod.release.model import Release

PROJECT_DIR = Path(__file__).resolve().parents[2]
RELEASE = Release(version="0.1.0", commit="1a" * 20, epoch=1795748426, source_dir=PROJECT_DIR)
KERNEL = "7.3.4+deb13-amd64"
RUSTC = "rustc 1.85.1 (4eb161250 2025-03-15) (built from a source tarball)"
GCC = "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0"
VERSION = "7.3.4-1~bpo13+1"

CLANG = "Debian clang version 19.1.7 (3+b1)"

#: What the scripts need of a host; its compilers and package managers are not to be seen.
PROGRAMS = (
    "awk",
    "basename",
    "bash",
    "cat",
    "chmod",
    "comm",
    "cp",
    "cut",
    "diff",
    "dirname",
    "flock",
    "grep",
    "head",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "nproc",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "tail",
    "touch",
    "tr",
    "uname",
    "wc",
)

#: What says of itself what the kernel was built by.
TOOLS = {
    "rustc": f'if [ "$1" = --print ]; then echo "$ROOT/sysroot"; else echo "{RUSTC}"; fi',
    "x86_64-linux-gnu-gcc-14": f'echo "{GCC}"',
    "bindgen": "echo bindgen 0.71.1",
    "pahole": "echo v1.30",
    "openssl": "echo OpenSSL 3.5.1",
    "apt": "exit 1",
    **dict.fromkeys(("make", "flex", "bison", "bc", "xz"), "exit 1"),
}

CONFIG = f"""CONFIG_CC_VERSION_TEXT="{GCC}"
CONFIG_RUSTC_VERSION=108501
CONFIG_RUSTC_VERSION_TEXT="{RUSTC}"
CONFIG_RUST=y
"""

CLANG_CONFIG = f"""CONFIG_CC_VERSION_TEXT="{CLANG}"
CONFIG_CC_IS_CLANG=y
CONFIG_CLANG_VERSION=190107
CONFIG_AS_IS_LLVM=y
CONFIG_LD_IS_LLD=y
CONFIG_RUSTC_VERSION=108501
CONFIG_RUSTC_VERSION_TEXT="{RUSTC}"
CONFIG_RUST=y
"""


@dataclass
class World:
    """A host with dkms' folders, one kernel's headers, and compilers that only tell their name."""

    root: Path

    @property
    def headers(self) -> Path:
        return self.root / f"lib/modules/{KERNEL}/build"

    @property
    def record(self) -> Path:
        return self.root / f"state/{KERNEL}/record"

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        return (
            ("ROOT", str(self.root)),
            ("MDRIVER_PATH", f"{self.root}/bin:{self.root}/host"),
            ("MDRIVER_OS_RELEASE", f"{self.root}/os-release"),
            ("MDRIVER_CACHE", f"{self.root}/cache"),
            ("MDRIVER_STATE", f"{self.root}/state"),
            ("MDRIVER_MODULES", f"{self.root}/lib/modules"),
            ("MDRIVER_SOURCES", f"{self.root}/src"),
        )

    def run(self, *argv: str) -> tuple[int, str]:
        return process.run_unchecked(
            Command(argv=argv, purpose="it", timeout_s=60, environment=self.environment)
        )

    @property
    def script(self) -> Path:
        return self.root / "tree/mdriver-rust/crates"

    def crates(self, *arguments: str) -> tuple[int, str]:
        return self.run("sh", str(self.script), *arguments)

    def check(self) -> tuple[int, str]:
        return self.crates("check", KERNEL, str(self.headers), "build")

    def source_conf(
        self, name: str, kernel: str, action: str = "build", asked: str = ""
    ) -> tuple[str, str]:
        """Source a dkms.conf as dkms does; return what it says, and what a person sees.

        Args:
            name: The package's name for dkms.
            kernel: What dkms says in kernelver.
            action: What dkms was called for.
            asked: The kernel on dkms' own command line.
        """
        conf = self.root / f"tree/{name}/dkms.conf"
        script = self.root / "dkms"
        script.write_text(
            f"action={action} kernelver={kernel!r} kernel_source_dir={str(self.headers)!r}\n"
            f'. "{conf}" >/dev/null\n'
            'echo "$BUILD_EXCLUSIVE_KERNEL|$AUTOINSTALL|$PACKAGE_NAME|$PACKAGE_VERSION|'
            '${BUILT_MODULE_NAME[0]}|$NO_WEAK_MODULES"\n'
        )
        argv = ("bash", str(script), action, *(("--kernelver", asked) if asked else ()))
        status, output = self.run(*argv)
        assert status == 0
        *seen, said = output.splitlines()
        return said, "\n".join(seen)


@pytest.fixture(scope="module")
def host_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host's programs that a script may use; nothing changes this folder."""
    folder = tmp_path_factory.mktemp("host")
    for name in PROGRAMS:
        (folder / name).symlink_to(process.find_program(name) or name)
    return folder


@pytest.fixture
def world(tmp_path: Path, host_dir: Path) -> World:
    """A kernel that can be served, once its crates are rebuilt."""
    made = World(tmp_path)
    sources = packages.read_sources(PROJECT_DIR)
    for name in ("mdriver-c", "mdriver-rust"):
        for file in packages.plan_tree(RELEASE, sources, f"{name}-dkms"):
            write(tmp_path / "tree" / name / file.path, file.content.decode())
    write(made.headers / ".config", CONFIG)
    write(made.headers / "Module.symvers", "0x0\t_RNvsymbol\tvmlinux\tEXPORT_SYMBOL_GPL\t\n")
    write(tmp_path / "src/linux-source-7.3.tar.xz", "")
    write(tmp_path / "sysroot/lib/rustlib/src/rust/library/core/src/lib.rs", "")
    for name, body in TOOLS.items():
        write_tool(made, name, body)
    write_versions(made, VERSION, VERSION)
    write_tool(made, "df", "printf 'a\\nb 1 1 99999999 1 /\\n'")
    write(tmp_path / "os-release", "ID=debian\nVERSION_CODENAME=trixie\n")
    (tmp_path / "host").symlink_to(host_dir)
    return made


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_tool(world: World, name: str, body: str) -> None:
    path = world.root / "bin" / name
    write(path, f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def write_versions(world: World, headers: str, source: str) -> None:
    body = f'case $4 in linux-headers-*) printf %s "{headers}" ;; *) printf %s "{source}" ;; esac'
    write_tool(world, "dpkg-query", body)


# -- the C module


@pytest.mark.parametrize(
    ("kernel", "served"),
    [
        ("6.12.107+deb13-amd64", True),
        ("6.20.0", True),
        ("7.3.4+deb13-amd64", True),
        ("10.0.0", True),
        ("6.11.9", False),
        ("6.9.1", False),
        ("6.1.0-44-amd64", False),
        ("5.10.0", False),
    ],
)
def test_the_c_module_is_for_linux_6_12_on(world: World, kernel: str, served: bool) -> None:
    said, _ = world.source_conf("mdriver-c", kernel)
    assert said == f"{'' if served else '^$'}|yes|mdriver-c|0.1.0|mdriver_c|yes"


@pytest.mark.parametrize(("asked", "wanted"), [("6.1.0-44-amd64", ""), ("6.12.1", "yes")])
def test_an_old_dkms_that_names_no_kernel_does_not_install_it_for_the_wrong_one(
    world: World, asked: str, wanted: str
) -> None:
    said, _ = world.source_conf("mdriver-c", "", "autoinstall", asked)
    assert said.split("|")[1] == wanted


# -- the Rust module: what dkms.conf says


def test_a_kernel_that_can_be_served_is_not_excluded(world: World) -> None:
    said, seen = world.source_conf("mdriver-rust", KERNEL)
    assert said == "|yes|mdriver-rust|0.1.0|mdriver_rust|yes"
    assert seen == ""
    assert not (world.root / "state").exists()


def test_a_kernel_without_rust_is_excluded_and_the_reason_is_shown_and_kept(world: World) -> None:
    write(world.headers / ".config", CONFIG.replace("CONFIG_RUST=y", "# CONFIG_RUST is not set"))
    said, seen = world.source_conf("mdriver-rust", KERNEL)
    assert said.startswith("^$|yes|")
    assert f"skipped for {KERNEL}: it was built without Rust" in seen
    assert "state: skipped\n" in world.record.read_text()
    status, output = world.crates("status")
    assert status == 0
    assert f"{KERNEL}: skipped: it was built without Rust" in output


def test_what_only_looks_is_told_nothing(world: World) -> None:
    write(world.headers / ".config", "")
    said, seen = world.source_conf("mdriver-rust", KERNEL, "remove")
    assert said.startswith("^$|")
    assert seen == ""


def test_dkms_that_asks_for_no_kernel_is_told_no_more_than_names(world: World) -> None:
    said, seen = world.source_conf("mdriver-rust", "", "status")
    assert said == "|yes|mdriver-rust|0.1.0|mdriver_rust|yes"
    assert seen == ""


def test_an_old_dkms_does_not_try_a_kernel_that_cannot_be_served(world: World) -> None:
    write(world.headers / ".config", "")
    said, _ = world.source_conf("mdriver-rust", "", "autoinstall", KERNEL)
    assert said.split("|")[1] == ""


# -- the Rust module: reasons


def break_source(world: World) -> None:
    (world.root / "src/linux-source-7.3.tar.xz").unlink()


REASONS: dict[str, tuple[Callable[[World], None], str, str]] = {
    "no source": (
        break_source,
        "its source package is not installed",
        f"apt install linux-source-7.3={VERSION}",
    ),
    "another source": (
        lambda w: write_versions(w, VERSION, "7.3.5-1~bpo13+1"),
        f"linux-source-7.3 is 7.3.5-1~bpo13+1, the headers are {VERSION}",
        f"apt install linux-source-7.3={VERSION}",
    ),
    "headers by hand": (
        lambda w: write_versions(w, "", VERSION),
        "its headers are of no Debian package",
        "",
    ),
    "another rustc": (
        lambda w: write_tool(w, "rustc", "echo rustc 1.96.1"),
        f"rustc is another: it is rustc 1.96.1, the kernel was built by {RUSTC}",
        "rustc",
    ),
    "another gcc": (
        lambda w: write_tool(w, "x86_64-linux-gnu-gcc-14", "echo gcc 15"),
        f"x86_64-linux-gnu-gcc-14 is another: it is gcc 15, the kernel was built by {GCC}",
        "gcc-14",
    ),
    "no rust-src": (
        lambda w: (w.root / "sysroot/lib/rustlib/src/rust/library/core/src/lib.rs").unlink(),
        "rust-src is not installed",
        "apt install rust-src",
    ),
    "no room": (
        lambda w: write_tool(w, "df", "printf 'a\\nb 1 1 1000000 1 /\\n'"),
        "takes 1500 MB",
        "",
    ),
    "crates elsewhere": (
        lambda w: (w.headers / "rust").symlink_to("../linux-lib-rust"),
        "its Rust crates are not installed",
        f"apt install linux-lib-rust-{KERNEL}",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_each_reason_is_exact_and_names_what_would_help(world: World, case: str) -> None:
    change, reason, help_text = REASONS[case]
    change(world)
    status, output = world.check()
    assert status == 1
    assert reason in output
    assert help_text in output
    assert reason in world.record.read_text()
    # A package manager's hook goes on.
    assert world.crates("hook", KERNEL)[0] == 0


#: os-release, the manager's program -> what helps where a kernel's headers and rustc are missing.
DISTRIBUTIONS = {
    "debian": (
        "ID=debian",
        "apt",
        "apt install linux-headers-{}",
        "apt install rustc rust-src bindgen",
        "apt-cache policy rustc",
    ),
    "mint": (
        "ID=linuxmint\nID_LIKE='ubuntu debian'",
        "apt",
        "apt install linux-headers-{}",
        "apt install rustc rust-src bindgen",
        "apt-cache policy rustc",
    ),
    "fedora": (
        "ID=fedora",
        "dnf",
        "dnf install kernel-devel-{}",
        "dnf install rust",
        "dnf list --showduplicates rust",
    ),
    "rocky": (
        'ID="rocky"\nID_LIKE="rhel centos fedora"',
        "dnf",
        "dnf install kernel-devel-{}",
        "dnf install rust",
        "dnf list --showduplicates rust",
    ),
    "arch": (
        "ID=arch",
        "pacman",
        "pacman -S linux-zen-headers",
        "pacman -S rust",
        "pacman -Si rust",
    ),
    "tumbleweed": (
        'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"',
        "zypper",
        "zypper install kernel-default-devel",
        "zypper install rust",
        "zypper search -s -x rust",
    ),
    "gentoo": ("ID=gentoo", "emerge", "", "", ""),
    "none": ("", "apt", "", "", ""),
    # Its own package manager was removed, as from an image that is never changed.
    "bare fedora": ("ID=fedora", "apt", "", "", ""),
}

#: What each calls a kernel.
RELEASES = {
    "fedora": "7.3.4-200.fc44.x86_64",
    "rocky": "7.3.4-12.el11.x86_64",
    "arch": "7.3.4-zen1-1-zen",
    "tumbleweed": "7.3.4-1-default",
}


def become(world: World, distribution: str) -> str:
    """Make the host one of another distribution, with one of its kernels; return its release."""
    text, manager, *_ = DISTRIBUTIONS[distribution]
    write(world.root / "os-release", f"NAME='An apt user'\n{text}\n")
    (world.root / "bin/apt").unlink()
    write_tool(world, manager, "exit 1")
    release = RELEASES.get(distribution, KERNEL)
    folder = world.root / "lib/modules" / release
    if not folder.exists():
        folder.mkdir()
        (folder / "build").symlink_to(world.headers)
    write(folder / "pkgbase", "linux-zen\n")
    return release


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("what", ["headers", "no rustc", "another rustc"])
def test_advice_is_that_of_the_distribution_or_none(
    world: World, distribution: str, what: str
) -> None:
    release = become(world, distribution)
    headers, rustc, versions = DISTRIBUTIONS[distribution][2:]
    if what == "headers":
        (world.headers / ".config").unlink()
    elif what == "no rustc":
        (world.root / "bin/rustc").unlink()
    else:
        write_tool(world, "rustc", "echo rustc 1.96.1")
    status, output = world.crates("check", release, "", "build")
    advice = {"headers": headers.format(release), "no rustc": rustc, "another rustc": versions}
    helps = [line for line in output.splitlines() if "this may help" in line]
    wanted = advice[what]
    assert status == 1
    assert helps == ([f"mdriver-rust: this may help: {wanted}"] if wanted else [])


@pytest.mark.parametrize(
    ("distribution", "release"),
    [
        ("fedora", "7.3.4-200.fc44.x86_64+debug"),
        ("fedora", "7.3.4-mine"),
        ("rocky", "7.3.4-1.el10.elrepo.x86_64"),
        ("tumbleweed", "7.3.4"),
        ("arch", "7.3.4-mine"),
    ],
)
def test_a_kernel_whose_package_has_another_name_has_no_advice(
    world: World, distribution: str, release: str
) -> None:
    become(world, distribution)
    status, output = world.crates("check", release, "", "build")
    assert (status, "its headers are not installed" in output) == (1, True)
    assert "this may help" not in output


@pytest.mark.parametrize("distribution", ["fedora", "arch", "tumbleweed", "gentoo"])
@pytest.mark.parametrize("case", [*REASONS, "no rust"])
def test_no_reason_advises_another_distributions_package_manager(
    world: World, distribution: str, case: str
) -> None:
    release = become(world, distribution)
    if case == "no rust":
        write(world.headers / ".config", "")
    else:
        REASONS[case][0](world)
    # A host of rpm can have dpkg too, which knows nothing of its kernels.
    status, output = world.crates("check", release, "", "build")
    assert (status, "skipped for" in output) == (1, True)
    assert "apt" not in output


def test_a_kernel_without_headers_is_refused_and_not_noted(world: World) -> None:
    (world.headers / ".config").unlink()
    status, output = world.check()
    assert status == 1
    assert "its headers are not installed" in output
    assert f"apt install linux-headers-{KERNEL}" in output
    assert not world.record.exists()


@pytest.mark.parametrize("kernel", ["7.1.9", "6.18.2"])
def test_an_older_rust_interface_is_refused(world: World, kernel: str) -> None:
    (world.root / "lib/modules" / kernel).mkdir()
    (world.root / "lib/modules" / kernel / "build").symlink_to(world.headers)
    status, output = world.crates("check", kernel, "", "build")
    assert status == 1
    assert "its Rust interface is older than that of Linux 7.2" in output


def test_what_was_skipped_is_forgotten_once_it_can_be_served(world: World) -> None:
    write_versions(world, VERSION, "7.3.5-1")
    assert world.check()[0] == 1
    write_versions(world, VERSION, VERSION)
    assert world.check() == (0, "")
    assert not world.record.exists()


@pytest.mark.parametrize("release", ["", "../x", ".work", "a/b"])
def test_what_is_no_kernel_release_names_no_folder(world: World, release: str) -> None:
    status, output = world.crates("check", release, "")
    assert status == 2
    assert "not a kernel release" in output


# -- the Rust module: what is built


def test_a_rebuild_that_fails_is_kept_with_its_log_and_not_repeated(world: World) -> None:
    write_tool(world, "tar", "echo no such thing; exit 1")
    status, output = world.crates("hook", KERNEL)
    assert status == 0
    assert "rebuilding the Rust crates" in output
    assert "its source does not unpack" in output
    assert "no such thing" in (world.record.parent / "log").read_text()
    # dkms skips it from now on, and so does the next hook.
    said, seen = world.source_conf("mdriver-rust", KERNEL)
    assert said.startswith("^$|")
    assert "its source does not unpack" in seen
    assert "rebuilding" not in world.crates("hook", KERNEL)[1]
    assert "rebuilding" in world.crates("prepare", KERNEL)[1]
    # Another compiler is another attempt.
    write_tool(world, "bindgen", "echo bindgen 0.72")
    assert "rebuilding" in world.crates("hook", KERNEL)[1]
    assert [path.name for path in (world.root / "cache").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("symbol", "reason"),
    [("_RNvother", "1 of 1 symbols are not in its Module.symvers"), ("", "export nothing")],
)
def test_crates_that_are_not_the_kernels_are_refused(
    world: World, symbol: str, reason: str
) -> None:
    make_source(world, symbol)
    status, output = world.crates("prepare", KERNEL)
    assert status == 1
    assert reason in output
    assert not (world.root / "cache" / KERNEL).exists()


def make_source(world: World, symbol: str) -> None:
    """Let make be one that leaves what a kernel's makefiles would."""
    line = f"EXPORT_SYMBOL_RUST_GPL({symbol});" if symbol else ""
    write_tool(world, "tar", "exit 0")
    write_tool(
        world,
        "make",
        "for word; do case $word in O=*) out=${word#O=} ;; modules) exit 0 ;; esac; done\n"
        "case $* in *olddefconfig*) exit 0 ;; esac\n"
        'mkdir -p "$out/rust" "$out/scripts"; touch "$out/scripts/target.json"\n'
        'touch "$out/rust/libkernel.rmeta" "$out/rust/libmacros.so"\n'
        f'echo "{line}" >"$out/rust/exports_kernel_generated.h"',
    )
    write(world.headers / "Makefile", "KBUILD_OUTPUT=/elsewhere\ninclude /common/Makefile\n")
    write(world.headers / "scripts/Kbuild.include", "")


def test_rebuilt_crates_are_kept_beside_links_to_the_headers(world: World) -> None:
    make_source(world, "_RNvsymbol")
    status, output = world.crates("prepare", KERNEL)
    assert status == 0
    said = (
        f"rebuilt: the source is {VERSION}, as the headers; the configuration is identical; "
        f"{RUSTC}; all 1 names of the crates are in its Module.symvers; "
        "no layout was compared: pahole finds no BTF in its headers"
    )
    assert said in output
    assert said.removeprefix("rebuilt: ") in world.crates("status")[1]
    tree = world.root / "cache" / KERNEL / "tree"
    assert sorted(path.name for path in (tree / "rust").iterdir()) == [
        "libkernel.rmeta",
        "libmacros.so",
    ]
    assert (tree / "Module.symvers").resolve() == (world.headers / "Module.symvers").resolve()
    assert "/elsewhere" not in (tree / "Makefile").read_text()
    assert "state: ready\n" in world.record.read_text()
    assert world.crates("hook", KERNEL) == (0, "")
    names = sorted(path.name for path in (world.root / "cache").iterdir())
    assert names == [KERNEL, "lock"]


def test_what_is_kept_serves_on_when_the_source_is_that_of_the_next_kernel(
    world: World,
) -> None:
    make_source(world, "_RNvsymbol")
    assert world.crates("prepare", KERNEL)[0] == 0
    write_versions(world, VERSION, "7.3.5-1~bpo13+1")
    (world.root / "bin/bindgen").write_text("#!/bin/sh\necho bindgen 0.99\n")
    assert world.check() == (0, "")
    assert world.crates("hook", KERNEL) == (0, "")
    # Not for another kernel of the same name, nor by another compiler.
    write(world.headers / "Module.symvers", "0x0\t_RNvother\tvmlinux\tEXPORT_SYMBOL_GPL\t\n")
    assert world.check()[0] == 1


#: As pahole prints types from BTF; FILE.enums is what it prints with --compile.
TYPES = """struct mutex {
	atomic_long_t              owner;                /*     0     8 */
	struct {
		unsigned int       tail:16;              /*     8: 0  4 */
		unsigned int       :0;

		u32                wait;                 /*    12     4 */
	};                                               /*     8     8 */

	/* XXX 8 bytes hole, try to pack */

	struct list_head           list;                 /*    24    16 */

	/* size: 40, cachelines: 1, members: 3 */
	/* last cacheline: 40 bytes */
};
union drm {
	u32                        a;                    /*     0     4 */
};
"""

ENUMS = """typedef int pid_t;
enum state {
	IDLE = 0,
	BUSY = -1,
};
struct mutex {
	atomic_long_t              owner;                /*     0     8 */
};
"""


def make_btf(world: World, types: str = TYPES, enums: str = ENUMS) -> None:
    """Let the kernel's headers have a BTF, and pahole find TYPES and ENUMS in what is compiled."""
    make_source(world, "_RNvsymbol")
    make = world.root / "bin/make"
    make.write_text(
        make.read_text().replace(
            "#!/bin/sh\n",
            "#!/bin/sh\ncase $* in *layouts.o*)\n"
            "for word; do case $word in M=*) folder=${word#M=} ;; esac; done\n"
            'grep -q bindings/bindings_helper.h "$folder/layouts.c" &&\n'
            'grep -q -e -fno-eliminate-unused-debug-types "$folder/Kbuild"; exit ;; esac\n',
            1,
        )
    )
    write_tool(
        world,
        "pahole",
        'case "$*" in "-F btf --compile "*) cat "$4.enums" ;; "-F btf "*) cat "$3" ;;\n'
        "*--btf_encode_detached=*) for word; do case $word in *detached=*) out=${word#*=} ;; esac\n"
        'done; cp "$ROOT/here" "$out"; cp "$ROOT/here.enums" "$out.enums" ;; *) echo v1.30 ;; esac',
    )
    write(world.root / "here", TYPES)
    write(world.root / "here.enums", ENUMS)
    write(world.headers / "vmlinux", types)
    write(world.headers / "vmlinux.enums", enums)


GUESSES = TYPES.replace("};\nunion", "} __attribute__((__packed__));\nunion").replace(
    "list;                 /*", "list __attribute__((__aligned__(8))); /*"
)


@pytest.mark.parametrize(
    ("types", "compared", "unknown"),
    [
        (TYPES, 3, 0),
        (TYPES[: TYPES.index("union")], 2, 1),
        (GUESSES, 3, 0),
        # Two source files may give one name to two types.
        (TYPES.replace("12     4", "16     4") + TYPES, 3, 0),
        (TYPES + TYPES.replace("12     4", "16     4"), 3, 0),
    ],
)
def test_types_that_the_kernel_lays_out_alike_are_counted(
    world: World, types: str, compared: int, unknown: int
) -> None:
    make_btf(world, types)
    status, output = world.crates("prepare", KERNEL)
    assert status == 0
    said = f"{compared} types were compared with its BTF, {unknown} are not in it"
    assert said in output
    assert said in world.crates("status")[1]


DIFFERENCES = {
    "size": (TYPES.replace("size: 40", "size: 48"), ENUMS, "struct mutex"),
    "offset": (TYPES.replace("24    16", "16    16"), ENUMS, "struct mutex"),
    "type": (TYPES.replace("atomic_long_t", "spinlock_t   "), ENUMS, "struct mutex"),
    "nested": (TYPES.replace("12     4", "16     4"), ENUMS, "struct mutex"),
    "bitfield": (TYPES.replace("tail:16", "tail:15"), ENUMS, "struct mutex"),
    "member": (TYPES.replace("u32                        a;  ", "u32  b;"), ENUMS, "union drm"),
    "constant": (TYPES, ENUMS.replace("-1", "1"), "enum state"),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_type_that_the_kernel_lays_out_differently_is_refused(world: World, case: str) -> None:
    types, enums, name = DIFFERENCES[case]
    make_btf(world, types, enums)
    status, output = world.crates("prepare", KERNEL)
    assert status == 1
    assert (
        "its rebuilt Rust crates are not the kernel's: 1 types are laid out differently, the first "
        f"is {name}; 3 types were compared with its BTF, 0 are not in it"
    ) in output
    assert not (world.root / "cache" / KERNEL).exists()
    assert f"\n{name}\n" in (world.record.parent / "log").read_text()
    assert world.source_conf("mdriver-rust", KERNEL)[0].startswith("^$|")


def test_layouts_that_are_not_found_are_refused(world: World) -> None:
    make_btf(world)
    (world.root / "here").write_text("")
    (world.root / "here.enums").write_text("")
    status, output = world.crates("prepare", KERNEL)
    assert status == 1
    assert "the layouts of its types were not found" in output


def test_a_configuration_that_differs_is_refused(world: World) -> None:
    make_source(world, "_RNvsymbol")
    make = world.root / "bin/make"
    make.write_text(
        make.read_text().replace(
            "*olddefconfig*) exit", '*olddefconfig*) echo X=y >>"$out/.config"; exit'
        )
    )
    status, output = world.crates("prepare", KERNEL)
    assert status == 1
    assert "another configuration" in output
    assert "X=y" in (world.record.parent / "log").read_text()


def test_crates_that_the_headers_hold_are_used(world: World) -> None:
    write(world.headers / "rust/libkernel.rmeta", "")
    break_source(world)
    write_tool(world, "make", 'echo "$@"')
    assert world.check() == (0, "")
    assert world.crates("hook", KERNEL) == (0, "")
    status, output = world.crates("build", KERNEL, str(world.headers), "V=1")
    assert status == 0
    assert f"-C {world.headers} M=" in output
    assert "V=1 modules" in output
    assert not (world.root / "cache" / KERNEL).exists()


def make_clang_kernel(world: World, compilers: dict[str, str], config: str = CLANG_CONFIG) -> None:
    """Let the kernel be one whose headers hold its crates, and that clang has built.

    Args:
        world: Where it is.
        compilers: What each of the programs says of itself.
        config: The kernel's configuration.
    """
    write(world.headers / ".config", config)
    write(world.headers / "rust/libkernel.rmeta", "")
    for name, text in compilers.items():
        write_tool(world, name, f'echo "{text}"')
    # As the kernel's makefiles: without being told, they call gcc, and its flags are not clang's.
    write_tool(
        world,
        "make",
        'case " $* " in *" LLVM="* | *" CC=clang"*) echo "$@" >>"$ROOT/made" ;;'
        " *) echo gcc: unrecognized option; exit 2 ;; esac",
    )


#: What there is, the configuration's change -> what make is told.
CLANGS: dict[str, tuple[dict[str, str], tuple[str, str], str]] = {
    "its own": ({"clang": CLANG, "ld.lld": ""}, ("", ""), " LLVM=1 "),
    "versioned": ({"clang-19": CLANG, "ld.lld-19": ""}, ("", ""), " LLVM=-19 "),
    "beside another": (
        {"clang": "clang version 20", "ld.lld": "", "clang-19": CLANG, "ld.lld-19": ""},
        ("", ""),
        " LLVM=-19 ",
    ),
    "its own first": (
        {"clang": CLANG, "ld.lld": "", "clang-19": "clang version 19.1.0", "ld.lld-19": ""},
        ("", ""),
        " LLVM=1 ",
    ),
    "only another": ({"clang": "clang version 20", "ld.lld": ""}, ("", ""), " LLVM=1 "),
    "ld": ({"clang": CLANG}, ("CONFIG_LD_IS_LLD=y\n", ""), " CC=clang "),
    "versioned and ld": ({"clang-19": CLANG}, ("CONFIG_LD_IS_LLD=y\n", ""), " CC=clang-19 "),
    "as": ({"clang": CLANG, "ld.lld": ""}, ("AS_IS_LLVM", "AS_IS_GNU"), " LLVM=1 LLVM_IAS=0 "),
}


@pytest.mark.parametrize("case", CLANGS)
def test_a_kernel_that_clang_built_is_served_by_clang(world: World, case: str) -> None:
    compilers, change, wanted = CLANGS[case]
    make_clang_kernel(world, compilers, CLANG_CONFIG.replace(*change))
    status, output = world.crates("prepare", KERNEL)
    assert (status, output) == (0, "")
    assert wanted in (world.root / "made").read_text()
    assert "state: ready\n" in world.record.read_text()
    assert world.check() == (0, "")


@pytest.mark.parametrize(
    ("compilers", "config", "reason", "helps"),
    [
        ({}, CLANG_CONFIG, f"clang is not installed; the kernel was built by {CLANG}", "-19"),
        ({"clang": CLANG}, CLANG_CONFIG, "ld.lld is not installed", ""),
        ({"clang-19": CLANG}, CLANG_CONFIG, "ld.lld-19 is not installed", "-19"),
    ],
)
def test_a_missing_clang_is_named_and_looked_for_again(
    world: World, compilers: dict[str, str], config: str, reason: str, helps: str
) -> None:
    make_clang_kernel(world, compilers, config)
    status, output = world.crates("prepare", KERNEL)
    assert status == 1
    assert reason in output
    assert f"apt install clang{helps} lld{helps} llvm{helps}" in output
    assert "state: skipped\n" in world.record.read_text()
    make_clang_kernel(world, {"clang": CLANG, "ld.lld": ""}, config)
    write_tool(world, "ld.lld-19", "")
    assert world.crates("prepare", KERNEL) == (0, "")


@pytest.mark.parametrize("said", [("LLVM=1",), ("CC=clang", "LD=ld.lld")])
def test_dkms_own_words_for_clang_give_way_to_its_name(world: World, said: tuple[str, ...]) -> None:
    make_clang_kernel(world, {"clang-19": CLANG, "ld.lld-19": ""})
    status, _ = world.crates("build", KERNEL, str(world.headers), *said, "V=1")
    assert status == 0
    made = (world.root / "made").read_text()
    assert (" LLVM=-19 " in made, " V=1 modules" in made) == (True, True)
    assert not any(f" {word}" in made for word in said)


def test_crates_of_a_kernel_that_clang_built_are_rebuilt_by_clang(world: World) -> None:
    make_source(world, "_RNvsymbol")
    write(world.headers / ".config", CLANG_CONFIG)
    make = world.root / "bin/make"
    make.write_text(make.read_text().replace("\n", '\necho "$@" >>"$ROOT/made"\n', 1))
    for name in ("ld.lld", "llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-strip"):
        write_tool(world, f"{name}-19", "")
    write_tool(world, "clang-19", "echo clang version 19.1.0")
    status, output = world.crates("prepare", KERNEL)
    assert status == 1
    assert "clang-19 is another: it is clang version 19.1.0, the kernel was built by" in output
    write_tool(world, "clang-19", f'echo "{CLANG}"')
    status, output = world.crates("prepare", KERNEL)
    assert (status, "all 1 names of the crates are in its" in output) == (0, True)
    lines = (world.root / "made").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["olddefconfig", "prepare", "modules"]
    assert all(" LLVM=-19 " in line for line in lines)
    (world.root / "bin/llvm-nm-19").unlink()
    (world.root / "cache" / KERNEL / "key").write_text("")
    assert "llvm-nm-19 is not installed" in world.check()[1]


@pytest.mark.parametrize(("change", "told"), [("", False), ("CONFIG_LD_IS_LLD=y\n", True)])
def test_a_kernel_that_gcc_built_is_not_served_by_clang(
    world: World, change: str, *, told: bool
) -> None:
    write(world.headers / ".config", CONFIG + change)
    write(world.headers / "rust/libkernel.rmeta", "")
    write_tool(world, "clang", f'echo "{CLANG}"')
    write_tool(world, "make", 'echo "$@ LLVM=$LLVM." >>"$ROOT/made"')
    argv = ("env", "LLVM=1", "sh", str(world.script), "prepare", KERNEL)
    status, output = world.run(*argv)
    assert (status, "ld.lld is not installed" in output) == (int(told), told)
    assert ("apt install lld" in output) == told
    write_tool(world, "ld.lld", "")
    assert world.run(*argv) == (0, "")
    made = (world.root / "made").read_text()
    assert ("LLVM=1" in made, " CC=" in made, " LD=ld.lld " in made) == (False, False, told)


@pytest.mark.parametrize("changed", ["script", "gcc", "source"])
def test_what_failed_is_tried_again_once_what_it_depends_on_has_changed(
    world: World, changed: str
) -> None:
    write(world.headers / "rust/libkernel.rmeta", "")
    write_tool(world, "make", "exit 2")
    assert world.crates("prepare", KERNEL)[0] == 1
    write_tool(world, "make", "exit 0")
    world.crates("hook", KERNEL)
    assert "state: failed\n" in world.record.read_text()
    if changed == "gcc":
        write_tool(world, "x86_64-linux-gnu-gcc-14", "echo gcc 14.3")
    else:
        path = world.script if changed == "script" else world.script.with_name("chardev.rs")
        path.write_text(f"{path.read_text()}\n")
    assert world.crates("hook", KERNEL) == (0, "")
    assert "state: ready\n" in world.record.read_text()


def test_the_module_is_tried_with_all_that_dkms_would_compile(world: World) -> None:
    write(world.headers / "rust/libkernel.rmeta", "")
    write_tool(
        world,
        "make",
        'for word; do case $word in M=*) ls "${word#M=}" >"$ROOT/seen" ;; esac; done',
    )
    sources = packages.read_sources(PROJECT_DIR)
    more = (*sources.rust, File(path="entry.S", content=b""), File(path="entry.h", content=b""))
    for file in packages.plan_tree(RELEASE, replace(sources, rust=more), "mdriver-rust-dkms"):
        write(world.script.with_name(file.path), file.content.decode())
    assert world.crates("prepare", KERNEL) == (0, "")
    names = [file.path for file in more]
    assert (world.root / "seen").read_text().split() == sorted(["Kbuild", *names])


def test_what_a_killed_rebuild_left_goes_with_the_next(world: World) -> None:
    make_source(world, "_RNvsymbol")
    write(world.root / "cache/.work.abcdef/linux/Makefile", "")
    assert world.crates("prepare", KERNEL)[0] == 0
    assert not (world.root / "cache/.work.abcdef").exists()


def test_an_interrupted_rebuild_leaves_nothing_and_is_no_failure(world: World) -> None:
    # tar stands for all that takes long. A shell's job in the background would not hear SIGINT.
    write_tool(world, "tar", 'kill -TERM "$PPID"; sleep 1')
    write_versions(world, VERSION, "another")
    assert world.check()[0] == 1
    write_versions(world, VERSION, VERSION)
    status, _ = world.crates("hook", KERNEL)
    assert status == 130
    assert [path.name for path in (world.root / "cache").iterdir()] == ["lock"]
    assert not world.record.parent.exists()
    assert world.check() == (0, "")


@pytest.mark.parametrize(
    ("known", "state", "installs"),
    [
        ("mdriver-rust/0.1.0: added", "skipped", True),
        ("", "skipped", False),
        ("mdriver-rust/0.1.0: added", "ready", False),
    ],
)
def test_a_retry_installs_where_it_was_not_ready_and_dkms_knows_the_module(
    world: World, known: str, state: str, *, installs: bool
) -> None:
    make_source(world, "_RNvsymbol")
    write(world.record, f"state: {state}\n")
    body = f'[ "$1" = status ] && echo "{known}" || echo "$@" >>"$ROOT/calls"'
    write_tool(world, "dkms", body)
    status, output = world.crates("retry")
    assert status == 0
    assert "skipped" not in output
    assert ("rebuilding" in output) == installs
    calls = world.root / "calls"
    assert calls.exists() == installs
    if installs:
        assert calls.read_text() == f"install -m mdriver-rust -v 0.1.0 -k {KERNEL}\n"


def test_what_belongs_to_kernels_that_are_gone_is_removed(world: World) -> None:
    make_source(world, "_RNvsymbol")
    assert world.crates("prepare", KERNEL)[0] == 0
    (world.headers / ".config").unlink()
    assert world.crates("prune") == (0, "")
    assert not (world.root / "cache" / KERNEL).exists()
    assert not world.record.exists()


@pytest.mark.parametrize("arguments", [(), ("bogus",)])
def test_a_wrong_command_is_told_the_right_ones(world: World, arguments: tuple[str, ...]) -> None:
    status, output = world.crates(*arguments)
    assert status == 2
    assert "usage: mdriver-rust-crates" in output

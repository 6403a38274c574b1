# SPDX-License-Identifier: GPL-2.0-only
"""Which packages are one kernel, and what its rebuilt crates are compared with."""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.sandbox import Chroot
from twinmod.errors import BuildError, ConfigError, MissingToolError
from twinmod.kernels import find, kconfig, proof, stock
from twinmod.kernels import packages as kernels_packages
from twinmod.kernels.model import CrateProof, KernelTree, Origin
from twinmod.kernels.stock import StockKernel
from twinmod.project.model import KernelSpec

VERSION = "7.3.4-1~bpo13+1"
RELEASE = "7.3.4+deb13-amd64"

#: As ``apt-cache show`` prints them, without the fields that nothing reads.
SPLIT = f"""\
Package: linux-image-amd64
Source: linux-signed-amd64 (7.3.4+1~bpo13+1)
Version: {VERSION}
Installed-Size: 12
Maintainer: Debian Kernel Team <debian-kernel@lists.example>
Architecture: amd64
Provides: linux-latest-modules-{RELEASE}, wireguard-modules (= 1.0.0)
Depends: linux-image-{RELEASE} (= {VERSION})
Description-en: Linux for 64-bit PCs (meta-package)
 This package depends on the latest Linux kernel and modules for use on PCs
 with AMD64, Intel 64 or VIA Nano processors.
Homepage: https://www.kernel.org/
Section: kernel

Package: linux-image-{RELEASE}
Version: {VERSION}
Depends: linux-binary-{RELEASE} (= {VERSION}), linux-modules-{RELEASE} (= {VERSION}), kmod

Package: linux-binary-{RELEASE}
Version: {VERSION}

Package: linux-modules-{RELEASE}
Version: {VERSION}

Package: linux-headers-{RELEASE}
Version: {VERSION}
Depends: linux-headers-7.3.4+deb13-common (= {VERSION}), gcc-14-for-host

Package: linux-image-cloud-amd64
Version: {VERSION}
Depends: linux-image-7.3.4+deb13-cloud-amd64 (= {VERSION})

Package: linux-image-7.3.4+deb13-cloud-amd64
Version: {VERSION}

Package: linux-image-7.2.12+deb13-amd64
Version: 7.2.12-1~bpo13+1

Package: linux-source-7.2
Version: 7.2.12-1~bpo13+1

Package: linux-source-7.3
Version: {VERSION}
Description-en: Linux kernel source for version 7.3 with Debian patches
"""

#: Before 7.0 the image's package holds kernel and modules.
OLDER = """\
Package: linux-image-amd64
Version: 6.12.107-1
Depends: linux-image-6.12.107+deb13-amd64 (= 6.12.107-1)

Package: linux-image-6.12.107+deb13-amd64
Version: 6.12.107-1
Depends: kmod, linux-base (>= 4.12~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool

Package: linux-headers-6.12.107+deb13-amd64
Version: 6.12.107-1

Package: linux-source-6.12
Version: 6.12.107-1
"""


def sign(text: str) -> tuple[dict[str, str], ...]:
    """Return stanzas, each with a digest of its own, as an index has them."""
    stanzas = kernels_packages.parse_stanzas(text)
    return tuple(s | {"SHA256": f"sha256 of {s['Package']} {s['Version']}"} for s in stanzas)


# -- packages ---------------------------------------------------------------------------------


def test_a_stanza_is_its_fields_without_the_lines_that_go_on() -> None:
    first, second, *_ = kernels_packages.parse_stanzas(SPLIT)
    assert first["Package"] == "linux-image-amd64"
    assert first["Version"] == VERSION
    assert first["Source"] == "linux-signed-amd64 (7.3.4+1~bpo13+1)"
    assert first["Description-en"] == "Linux for 64-bit PCs (meta-package)"
    assert first["Homepage"] == "https://www.kernel.org/"
    assert not any(name.startswith(" ") for name in first)
    assert second["Package"] == f"linux-image-{RELEASE}"


@pytest.mark.parametrize("text", ["", "\n\n\n"])
def test_no_output_is_no_stanza(text: str) -> None:
    assert kernels_packages.parse_stanzas(text) == ()


def test_a_split_kernel_is_image_modules_headers_and_source_of_one_version(
    kernel_spec: KernelSpec,
) -> None:
    found = kernels_packages.plan_packages(kernel_spec, sign(SPLIT))
    assert found == kernels_packages.KernelPackages(
        release=RELEASE,
        version=VERSION,
        names=(
            f"linux-binary-{RELEASE}",
            f"linux-modules-{RELEASE}",
            f"linux-headers-{RELEASE}",
            "linux-source-7.3",
        ),
        digests=tuple(
            f"sha256 of {name} {VERSION}"
            for name in (
                f"linux-binary-{RELEASE}",
                f"linux-modules-{RELEASE}",
                f"linux-headers-{RELEASE}",
                "linux-source-7.3",
            )
        ),
    )


def test_an_older_kernel_has_its_files_in_the_image(kernel_spec: KernelSpec) -> None:
    found = kernels_packages.plan_packages(kernel_spec, sign(OLDER))
    assert found.release == "6.12.107+deb13-amd64"
    assert found.names == (
        "linux-image-6.12.107+deb13-amd64",
        "linux-headers-6.12.107+deb13-amd64",
        "linux-source-6.12",
    )


def test_a_flavour_is_not_another_one_that_ends_like_it(kernel_spec: KernelSpec) -> None:
    text = SPLIT + (f"\nPackage: linux-headers-7.3.4+deb13-cloud-amd64\nVersion: {VERSION}\n")
    cloud = replace(kernel_spec, flavour="cloud-amd64")
    found = kernels_packages.plan_packages(cloud, sign(text))
    assert found.release == "7.3.4+deb13-cloud-amd64"


def test_the_newest_version_of_the_meta_package_is_taken(kernel_spec: KernelSpec) -> None:
    old = (
        "\nPackage: linux-image-amd64\nVersion: 7.2.12-1~bpo13+1\n"
        "Depends: linux-image-7.2.12+deb13-amd64\n"
    )
    found = kernels_packages.plan_packages(kernel_spec, sign(SPLIT + old))
    assert found.version == VERSION


def test_a_source_of_another_version_is_refused(kernel_spec: KernelSpec) -> None:
    head, _, tail = SPLIT.rpartition(f"Version: {VERSION}")
    stanzas = sign(f"{head}Version: 7.3.3-1~bpo13+1{tail}")
    with pytest.raises(ConfigError, match=rf"{re.escape(VERSION)} without linux-source-7\.3$"):
        kernels_packages.plan_packages(kernel_spec, stanzas)


def test_headers_that_are_not_there_yet_are_refused_by_name(kernel_spec: KernelSpec) -> None:
    stanzas = sign(SPLIT)
    left = tuple(s for s in stanzas if not s["Package"].startswith("linux-headers-"))
    with pytest.raises(ConfigError, match=re.escape(f"without linux-headers-{RELEASE}")):
        kernels_packages.plan_packages(kernel_spec, left)


def test_an_unknown_flavour_is_refused_by_name(kernel_spec: KernelSpec) -> None:
    spec = replace(kernel_spec, flavour="rt-amd64")
    with pytest.raises(ConfigError, match="'rt-amd64'"):
        kernels_packages.plan_packages(spec, sign(SPLIT))


def test_only_packages_that_a_kernel_is_made_of_are_asked_for() -> None:
    names = (
        "linux-image-amd64",
        "linux-libc-dev",
        f"linux-image-{RELEASE}-dbg",
        "linux-source-7.3",
        "linux-headers-amd64",
        f"linux-binary-{RELEASE}",
        f"linux-modules-{RELEASE}",
        "linux-doc",
    )
    assert kernels_packages.plan_package_names(names) == (
        f"linux-binary-{RELEASE}",
        "linux-headers-amd64",
        "linux-image-amd64",
        f"linux-modules-{RELEASE}",
        "linux-source-7.3",
    )


def test_only_whole_packages_of_this_kernel_are_kept(tmp_path: Path) -> None:
    contents = {"linux-headers-x": b"whole", "linux-source-7.3": b"source"}
    packages = kernels_packages.KernelPackages(
        release="x",
        version=VERSION,
        names=tuple(contents),
        digests=tuple(hashlib.sha256(content).hexdigest() for content in contents.values()),
    )
    headers, source = tmp_path / "linux-headers-x_7_amd64.deb", tmp_path / "linux-source-7.3_7.deb"
    headers.write_bytes(b"whole")
    (absent,) = kernels_packages.find_broken_packages(packages, tmp_path)
    assert absent.name.startswith("linux-source-7.3_")
    source.write_bytes(b"sourc")
    old = tmp_path / "linux-headers-w_6_amd64.deb"
    old.write_bytes(b"of another kernel")
    assert set(kernels_packages.find_broken_packages(packages, tmp_path)) == {source, old}
    source.write_bytes(b"source")
    old.unlink()
    assert kernels_packages.find_broken_packages(packages, tmp_path) == ()


def test_apt_reads_our_sources_alone_and_keeps_its_state_in_our_folder(root: Chroot) -> None:
    command = kernels_packages.prepare_apt(
        root, ("apt-get", "update"), Path("/cache/work"), "not listed"
    )
    inside = command.argv[command.argv.index("--") + 1 :]
    assert inside == (
        "sh",
        "-c",
        'cd "$1" && shift && exec "$@"',
        "sh",
        "/twinmod/scratch/deb",
        "apt-get",
        "-o",
        "Dir::Etc::SourceList=/twinmod/scratch/apt/debian.sources",
        "-o",
        "Dir::Etc::SourceParts=/nonexistent",
        "-o",
        "Dir::State::Lists=/twinmod/scratch/apt/lists",
        "-o",
        "Dir::Cache=/twinmod/scratch/apt/cache",
        "-o",
        "APT::Sandbox::User=root",
        "-o",
        "Acquire::Retries=3",
        "-o",
        "Acquire::Languages=none",
        "update",
    )
    assert "--share-net" in command.argv


def test_the_sources_name_mirror_suite_and_the_key_that_signs_it() -> None:
    text = kernels_packages.render_sources("http://m/debian", "trixie-backports", "/k.gpg")
    assert kernels_packages.parse_stanzas(text) == (
        {
            "Types": "deb",
            "URIs": "http://m/debian",
            "Suites": "trixie-backports",
            "Components": "main",
            "Signed-By": "/k.gpg",
        },
    )


# -- configuration ----------------------------------------------------------------------------

CONFIG = """\
#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 7.3.4 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0"
CONFIG_RUST=y
# CONFIG_NET_9P is not set
CONFIG_OVERLAY_FS=m
CONFIG_CMDLINE="a=b c"
CONFIG_NR_CPUS=8192
"""


def test_a_kernel_that_a_vm_cannot_boot_is_refused_with_what_it_lacks(
    kernel_spec: KernelSpec,
) -> None:
    bootable = dict.fromkeys(kconfig.VM_BUILTINS, "y") | {o: "m" for _, o in kconfig.VM_MODULES}
    stock.require_options(kernel_spec, bootable)
    with pytest.raises(ConfigError, match=r"amd64 kernel of .*lacks CONFIG_PVH$"):
        stock.require_options(kernel_spec, bootable | {"CONFIG_PVH": "n"})


def test_equal_configurations_are_accepted() -> None:
    stock.compare_configs(CONFIG, CONFIG)


def test_a_configuration_that_changed_is_refused_with_the_difference() -> None:
    rebuilt = CONFIG.replace("CONFIG_RUST=y", "# CONFIG_RUST is not set")
    with pytest.raises(BuildError) as caught:
        stock.compare_configs(CONFIG, rebuilt)
    shown = dict(caught.value.facts)["difference"].splitlines()
    assert "-CONFIG_RUST=y" in shown
    assert "+# CONFIG_RUST is not set" in shown
    # The rest of ten thousand lines is no difference.
    assert not any("NR_CPUS" in line for line in shown)


# -- the crates' proof ------------------------------------------------------------------------

SYMVERS = "0x12345678\tmisc_register\tvmlinux\tEXPORT_SYMBOL\t\n"


def test_a_kernel_without_rust_needs_no_proof(root: Chroot) -> None:
    found = stock.prove_crates(root, {}, (), SYMVERS)
    assert found == CrateProof(reference="the stock kernel", rustc="", checked_symbols=0)


RUST = {"CONFIG_RUST": "y", "CONFIG_RUSTC_VERSION_TEXT": "rustc 1.85.1 (4eb161250 2025-03-15)"}


@pytest.mark.parametrize(
    ("rustc", "exports", "fact"),
    [
        ("rustc 1.85.1 (4eb161250 2025-03-15)", ("misc_register", "_RNvother"), "_RNvother"),
        ("rustc 1.85.1 (4eb161250 2025-03-15)", (), "0"),
        ("rustc 1.85.1 (1111aaaa 2025-03-15)", ("misc_register",), "rustc 1.85.1 (1111aaaa"),
    ],
)
def test_crates_of_another_rustc_or_with_other_names_are_refused(
    root: Chroot, monkeypatch: pytest.MonkeyPatch, rustc: str, exports: tuple[str, ...], fact: str
) -> None:
    monkeypatch.setattr(process, "run", lambda _: f"{rustc}\n")
    with pytest.raises(BuildError, match="not those of the stock kernel") as caught:
        stock.prove_crates(root, RUST, exports, SYMVERS)
    assert any(value.startswith(fact) for _, value in caught.value.facts)


def test_crates_with_the_same_names_still_have_their_layouts_to_be_compared(
    root: Chroot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "run", lambda _: RUST["CONFIG_RUSTC_VERSION_TEXT"])
    found = stock.prove_crates(root, RUST, ("misc_register",), SYMVERS)
    assert (found.checked_symbols, found.equal_layouts) == (1, 0)
    assert found.uncompared == proof.PENDING


# -- what is kept -----------------------------------------------------------------------------


def test_another_suite_flavour_or_chroot_is_another_tree(stock_kernel: StockKernel) -> None:
    spec, root = stock_kernel.spec, stock_kernel.chroot
    keys = {
        stock_kernel.key,
        replace(stock_kernel, spec=replace(spec, suite="sid")).key,
        replace(stock_kernel, spec=replace(spec, flavour="cloud-amd64")).key,
        replace(stock_kernel, chroot=replace(root, key="trixie-2")).key,
    }
    assert len(keys) == 4


def test_a_tree_is_read_back_as_it_was_recorded(
    cache_dir: Path, stock_kernel: StockKernel, tree: KernelTree
) -> None:
    folder = cache_dir / "kernel" / stock_kernel.key
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(
        f'{{"release": "{RELEASE}", "version": "{VERSION}", "suite": "trixie-backports",'
        ' "cc": "x86_64-linux-gnu-gcc-14", "vm_modules": ["9p.ko"], "vital": {}, "proof":'
        f' {{"reference": "the stock kernel", "rustc": "{tree.proof.rustc}",'
        ' "checked_symbols": 690, "equal_layouts": 3102, "ambiguous_layouts": [],'
        ' "unknown_layouts": ["struct drm_device", "typedef gpu_t"], "uncompared": ""}}'
    )
    assert stock_kernel.find() == replace(
        tree,
        key=folder.name,
        source_dir=folder / "linux",
        build_dir=folder / "build",
        image_path=folder / "vm/vmlinux",
        vm_module_paths=(folder / "vm/9p.ko",),
    )


NOT_MADE = MissingToolError("not set up", hint="twinmod setup")


@dataclass(frozen=True)
class Compared:
    """What came of the comparison of a kernel's layouts, and what the doctor makes of it."""

    origin: Origin
    uncompared: str
    ok: bool
    fix: str


@pytest.mark.parametrize(
    "compared",
    [
        Compared(Origin.STOCK, "", True, ""),
        Compared(Origin.STOCK, proof.PENDING, False, "twinmod setup"),
        Compared(Origin.STOCK, "the kernel has no BTF", False, ""),
        Compared(Origin.BUILT, "one make built both", True, ""),
    ],
)
def test_the_doctor_says_whether_layouts_were_compared(
    tree: KernelTree, stock_kernel: StockKernel, compared: Compared
) -> None:
    equal = 0 if compared.uncompared else 3102
    proved = replace(tree.proof, equal_layouts=equal, uncompared=compared.uncompared)
    tree = replace(tree, origin=compared.origin, proof=proved)
    checks = find.check_tree(stock_kernel, tree, NOT_MADE)
    found = {check.name: check for check in checks}["layouts"]
    assert (found.ok, found.required, found.fix) == (compared.ok, False, compared.fix)
    assert compared.uncompared in found.found
    assert ("3102 types equal, 2 not in its BTF" in found.found) == (not compared.uncompared)


def test_the_doctor_does_not_fail_for_a_tree_that_setup_will_make(
    stock_kernel: StockKernel,
) -> None:
    for check in find.check_tree(stock_kernel, None, NOT_MADE):
        assert (check.ok, check.required, check.fix) == (False, False, "twinmod setup")


def test_the_doctor_wants_no_crates_of_a_kernel_without_rust(
    tree: KernelTree, stock_kernel: StockKernel
) -> None:
    bare = replace(tree, proof=replace(tree.proof, rustc="", checked_symbols=0))
    assert all(check.ok for check in find.check_tree(stock_kernel, bare, NOT_MADE))


def test_a_kernel_that_was_built_without_rustc_finds_none() -> None:
    options = {"CONFIG_CC_VERSION_TEXT": "gcc-14 (Debian 14.2.0-19) 14.2.0"}
    assert "RUSTC=false" in stock.plan_configure(
        {**options, "CONFIG_RUSTC_VERSION": "0"}, "olddefconfig"
    )
    assert "RUSTC=false" not in stock.plan_configure(
        {**options, "CONFIG_RUSTC_VERSION": "108501"}, "olddefconfig"
    )


@pytest.mark.parametrize(
    "releases",
    [
        ("7.3.4+deb13-amd64", "7.3.2+deb13-amd64", "7.2.12+deb13-amd64", "7.2.9+deb13-amd64"),
        ("7.3-amd64", "7.3-rc7-amd64", "7.3-rc6-amd64", "6.12.117+deb13-amd64"),
    ],
)
def test_the_newest_kernel_comes_first(releases: tuple[str, ...]) -> None:
    stanzas = tuple(
        {"Package": f"linux-image-{release}", "Version": release}
        for release in (*sorted(releases), "7.9.9+deb13-cloud-amd64", "7.9.9+deb13-rt-amd64")
    )
    spec = KernelSpec(name="k", chroot="c", suite="s", flavour="amd64")
    assert [release for release, _ in kernels_packages.find_releases(spec, stanzas)] == list(
        releases
    )


def test_a_series_takes_its_own_kernels_only() -> None:
    names = ("7.2.9+deb13-amd64", "7.2.12+deb13-amd64", "7.20.1+deb13-amd64", "7.3.4+deb13-amd64")
    stanzas = tuple({"Package": f"linux-image-{name}", "Version": name} for name in names)
    spec = KernelSpec(name="k", chroot="c", suite="s", flavour="amd64", series="7.2")
    found = [release for release, _ in kernels_packages.find_releases(spec, stanzas)]
    assert found == ["7.2.12+deb13-amd64", "7.2.9+deb13-amd64"]

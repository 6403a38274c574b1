# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's own modules, and what of them, and of its siblings, a module is loaded after."""

import lzma
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.progress import Progress
from twinmod.builds import build, needs
from twinmod.builds.product import NeededModule, Product
from twinmod.errors import BuildError, ConfigError, MissingToolError
from twinmod.kernels import modules, stock
from twinmod.kernels import packages as kernels_packages
from twinmod.kernels.model import CrateProof, KernelTree, Origin
from twinmod.kernels.modules import KernelModules
from twinmod.kernels.packages import KernelPackages
from twinmod.kernels.stock import StockKernel
from twinmod.project.model import KernelSpec, ModuleSpec

MakeElf = Callable[[dict[str, str], tuple[str, ...], tuple[str, ...]], bytes]

RELEASE = "7.3.4+deb13-amd64"

GCC = "GCC: (Debian 14.2.0-19) 14.2.0"

#: What each module of a kernel depends on.
DEPENDS = {"mc": "", "videodev": "mc", "video-dev2": "mc,videodev", "null_blk": ""}


@pytest.fixture
def packages_dir(tmp_path: Path, make_elf: MakeElf) -> Path:
    """The unpacked packages of a kernel."""
    root = tmp_path / "pkg/usr/lib/modules" / RELEASE
    for name, depends in DEPENDS.items():
        path = root / "kernel/drivers" / f"{name}.ko.xz"
        path.parent.mkdir(parents=True, exist_ok=True)
        info = {"depends": depends, "name": name, "vermagic": f"{RELEASE} SMP "}
        path.write_bytes(lzma.compress(make_elf(info, (GCC,), ("init_module",))))
    (root / "modules.builtin").write_text("kernel/drivers/virtio/virtio-pci.ko\nkernel/lib/x.ko\n")
    return tmp_path / "pkg"


@pytest.fixture
def own(packages_dir: Path, tmp_path: Path) -> KernelModules:
    (tmp_path / "vm").mkdir()
    stock.keep_modules(packages_dir, tmp_path)
    return modules.read_archive(tmp_path / stock.MODULES, RELEASE)


def never() -> KernelModules:
    raise AssertionError("nobody needs the kernel's modules")


# -- the kernel's own -------------------------------------------------------------------------


def test_all_modules_are_kept_as_they_are_packed(own: KernelModules, packages_dir: Path) -> None:
    assert set(own.files) == {"mc", "videodev", "video_dev2", "null_blk"}
    assert own.builtin == {"virtio_pci", "x"}
    (packed,) = packages_dir.rglob("video-dev2.ko.xz")
    assert own.read_file(own.files["video_dev2"]) == packed.read_bytes()
    assert own.read("video_dev2") == lzma.decompress(packed.read_bytes())


def test_the_same_modules_give_the_same_archive(packages_dir: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "vm").mkdir(parents=True)
        stock.keep_modules(packages_dir, tmp_path / name)
    one, two = ((tmp_path / name / stock.MODULES).read_bytes() for name in ("one", "two"))
    assert one == two


def test_packages_without_a_module_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vm").mkdir()
    with pytest.raises(BuildError, match="hold no module"):
        stock.keep_modules(tmp_path / "pkg", tmp_path)


@pytest.mark.parametrize("harm", ["gone", "cut", "another"])
def test_an_archive_that_cannot_be_read_is_one_error(
    harm: str, own: KernelModules, tmp_path: Path
) -> None:
    path = tmp_path / stock.MODULES
    match harm:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-30])
        case "another":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.ko", b"")
    with pytest.raises(MissingToolError, match=f"modules of kernel {own.release[:5]}"):
        modules.read_archive(path, own.release)


def test_a_module_that_is_packed_in_a_new_way_is_refused(own: KernelModules) -> None:
    strange = replace(own, files={"a": "kernel/a.ko.lz4"})
    with pytest.raises(BuildError, match="packed in an unknown way"):
        strange.read("a")


def test_the_modules_of_a_build_are_those_that_it_lists(tmp_path: Path) -> None:
    for name in ("fs/9p/9p.ko", "net/a-b.ko", "left/over.ko"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(name.encode())
    # As Linux 7.3 writes it, and as 6.1 did.
    (tmp_path / "modules.order").write_text("fs/9p/9p.o\nkernel/net/a-b.ko\ngone/gone.o\n")
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    found = modules.read_build(tmp_path, "7.3.4-own")
    assert found.files == {"9p": "fs/9p/9p.ko", "a_b": "net/a-b.ko"}
    assert found.read("a_b") == b"net/a-b.ko"
    assert found.builtin == {"ext4"}
    assert modules.read_build(tmp_path / "net", "x").files == {}


# -- an entry that an older twinmod made ------------------------------------------------------

STANZAS = tuple(
    {"Package": f"{name}-{RELEASE}", "Version": "7.3.4-1", "SHA256": f"sha256 of {name}"}
    for name in ("linux-binary", "linux-modules", "linux-base", "linux-image")
)


def test_modules_and_the_list_of_built_in_ones_are_taken_of_the_version_that_is_there(
    kernel_spec: KernelSpec,
) -> None:
    which = (RELEASE, "7.3.4-1")
    found = kernels_packages.plan_modules_packages(kernel_spec, STANZAS, which)
    assert found.names == (f"linux-modules-{RELEASE}", f"linux-base-{RELEASE}")
    assert found.digests == ("sha256 of linux-modules", "sha256 of linux-base")
    older = kernels_packages.plan_modules_packages(kernel_spec, STANZAS[-1:], which)
    assert older.names == (f"linux-image-{RELEASE}",)
    with pytest.raises(MissingToolError, match=r"no longer serves kernel 7\.3\.3-1") as caught:
        kernels_packages.plan_modules_packages(kernel_spec, STANZAS, (RELEASE, "7.3.3-1"))
    assert "cache prune --all" in caught.value.hint


@pytest.fixture
def older_entry(cache_dir: Path, stock_kernel: StockKernel) -> Path:
    """The folder of a kernel in the cache, without modules."""
    folder = cache_dir / "kernel" / stock_kernel.key
    (folder / "vm").mkdir(parents=True)
    (folder / "vm/vmlinux").write_text("as it was")
    record = f'{{"release": "{RELEASE}", "version": "7.3.4-1", "vital": {{"vm/vmlinux": 9}}}}'
    (folder / "record.json").write_text(record)
    return folder


def test_a_kernel_that_an_older_twinmod_made_gets_its_modules_once_and_stays(
    older_entry: Path,
    stock_kernel: StockKernel,
    packages_dir: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = older_entry
    downloads = []

    def download(found: object, chroot: object, work_dir: Path) -> None:
        downloads.append(work_dir)
        packages_dir.rename(work_dir / "pkg")

    monkeypatch.setattr(kernels_packages, "read_stanzas", lambda *_: STANZAS)
    monkeypatch.setattr(kernels_packages, "download_packages", download)
    monkeypatch.setattr(process, "run", lambda _: "")
    for _ in range(2):
        found = stock_kernel.ensure_modules(progress)
        assert set(found.files) == {"mc", "videodev", "video_dev2", "null_blk"}
    assert len(downloads) == 1
    assert {path.name for path in folder.iterdir()} == {"record.json", "vm"}
    assert (folder / "vm/vmlinux").read_text() == "as it was"
    # A damaged archive is one of the vital files from now on.
    (folder / stock.MODULES).write_bytes(b"")
    assert stock_kernel.find() is None


def test_a_kernel_that_is_made_has_its_modules_at_once(
    cache_dir: Path,
    stock_kernel: StockKernel,
    packages_dir: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = KernelPackages(release=RELEASE, version="7.3.4-1", names=(), digests=())

    def unpack(_: object, entry_dir: Path) -> None:
        for name in ("vm/vmlinux", "build/Module.symvers", "build/.config", "work/apt/lists"):
            (entry_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (entry_dir / name).write_text("")
        (entry_dir / "build/scripts/mod").mkdir(parents=True)
        (entry_dir / "build/scripts/mod/modpost").write_text("")
        packages_dir.rename(entry_dir / "work/pkg")

    options = {"CONFIG_CC_VERSION_TEXT": "gcc-14 (Debian)"}
    proved = CrateProof(reference="the stock kernel", rustc="", checked_symbols=0)
    monkeypatch.setattr(kernels_packages, "read_packages", lambda *_: found)
    monkeypatch.setattr(kernels_packages, "download_packages", lambda *_: None)
    monkeypatch.setattr(stock, "unpack_packages", unpack)
    monkeypatch.setattr(stock, "unpack_image", lambda *_: ())
    monkeypatch.setattr(stock, "configure_tree", lambda *_: options)
    monkeypatch.setattr(stock, "build_crates", lambda *_: proved)
    monkeypatch.setattr(stock, "DISK_BYTES", 0)
    cache_dir.mkdir()
    stock_kernel.ensure(progress)
    monkeypatch.setattr(stock, "add_modules", None)
    assert stock_kernel.ensure_modules(progress).builtin == {"virtio_pci", "x"}
    assert not (cache_dir / "kernel" / stock_kernel.key / "work").exists()


# -- what is loaded first ---------------------------------------------------------------------


def test_a_module_that_depends_on_nothing_asks_for_nothing(product: Product) -> None:
    assert needs.find_needed("m", (), {}, never) == ()


def test_what_is_needed_comes_in_load_order_and_once(product: Product, own: KernelModules) -> None:
    found = needs.find_needed("m", ("video_dev2", "videodev", "virtio_pci"), {}, lambda: own)
    assert [name for name, _ in found] == ["mc", "videodev", "video_dev2"]
    assert dict(found)["mc"] == own.read("mc")


def test_a_sibling_goes_before_the_kernels_own_and_has_needs_too(
    product: Product, own: KernelModules, make_elf: MakeElf, tmp_path: Path
) -> None:
    sibling = tmp_path / "mc.ko"
    sibling.write_bytes(make_elf({"depends": "null_blk"}, (GCC,), ()))
    found = needs.find_needed("m", ("videodev",), {"mc": sibling}, lambda: own)
    assert [name for name, _ in found] == ["null_blk", "mc", "videodev"]


def test_what_is_nowhere_is_one_error_with_all_names(
    product: Product, own: KernelModules, make_elf: MakeElf, tmp_path: Path
) -> None:
    sibling = tmp_path / "core.ko"
    sibling.write_bytes(make_elf({"depends": "gone,gone2"}, (GCC,), ()))
    with pytest.raises(BuildError, match=r"kernel has gone, gone2$") as caught:
        needs.find_needed("m", ("gone", "mc", "core"), {"core": sibling}, lambda: own)
    assert caught.value.facts == (("needed by m", "gone"), ("needed by core", "gone2"))


def test_modules_that_depend_on_each_other_are_refused(
    product: Product, own: KernelModules, make_elf: MakeElf, tmp_path: Path
) -> None:
    paths = {name: tmp_path / f"{name}.ko" for name in ("a", "b")}
    for name, other in (("a", "b"), ("b", "a")):
        paths[name].write_bytes(make_elf({"depends": other}, (GCC,), ()))
    with pytest.raises(BuildError, match="a and b depend on each other"):
        needs.find_needed("m", ("a",), paths, lambda: own)


# -- the builder ------------------------------------------------------------------------------


@pytest.fixture
def builder(
    tree: KernelTree, own: KernelModules, tmp_path: Path, progress: Progress
) -> needs.Builder:
    (tmp_path / ".config").write_text("CONFIG_KASAN=y\n")
    return needs.Builder(
        tree=replace(tree, build_dir=tmp_path),
        find_modules=lambda: own,
        project_dir=tmp_path,
        out_dir=tmp_path / "out",
        version="",
        progress=progress,
    )


STOCK = ModuleSpec(name="", label="c", stock="video-dev2", parameters=("debug=1",))


def test_a_distributions_module_is_a_product_with_what_it_needs(
    builder: needs.Builder, own: KernelModules, tmp_path: Path
) -> None:
    made = builder.make(STOCK)
    folder = tmp_path / "out/build" / RELEASE
    assert (made.module, made.language, made.parameters) == ("video_dev2", "c", ("debug=1",))
    assert made.path == folder / "video_dev2/video_dev2.ko"
    assert made.path.read_bytes() == own.read("video_dev2")
    assert made.needed == tuple(
        NeededModule(name=name, path=folder / f".needed/{name}.ko") for name in ("mc", "videodev")
    )
    assert made.needed[0].path.read_bytes() == own.read("mc")
    assert (made.up_to_date, made.blind) == (True, ("KASAN",))
    report = build.plan_report((made,), builder.tree).products[0]
    assert (report.needed, report.parameters) == (("mc", "videodev"), ("debug=1",))
    assert report.depends == ("mc", "videodev")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("nul_blk", "has no module nul_blk", "did you mean null_blk?"),
        ("virtio-pci", "virtio_pci is part of kernel .* itself", ""),
    ],
)
def test_a_module_that_the_distribution_does_not_have_is_refused(
    name: str, message: str, hint: str, builder: needs.Builder
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        builder.make(replace(STOCK, stock=name))
    assert caught.value.hint == hint


def test_a_distributions_module_is_absent_where_we_build_the_kernel(
    builder: needs.Builder,
) -> None:
    tree = replace(builder.tree, origin=Origin.BUILT)
    built = replace(builder, tree=tree, find_modules=never)
    with pytest.raises(BuildError, match=r"module c is absent: .* not a distribution's"):
        built.make(STOCK)


def test_modules_under_test_have_names_of_their_own_and_do_without_each_other(
    product: Product,
) -> None:
    other = replace(product, module="other")
    needs.require_apart((product, other))
    with pytest.raises(ConfigError, match="two modules are called other"):
        needs.require_apart((product, other, other))
    needy = replace(other, needed=(NeededModule(name="mdriver_c", path=Path("/m.ko")),))
    with pytest.raises(ConfigError, match="other depends on mdriver_c, which is under test too"):
        needs.require_apart((product, needy))


def test_what_a_person_wants_loaded_is_the_kernels_and_comes_with_what_it_needs(
    builder: needs.Builder,
) -> None:
    found = builder.take(("videodev", "virtio-pci", "video-dev2"))
    assert [one.name for one in found] == ["mc", "videodev", "video_dev2"]
    assert replace(builder, find_modules=never).take(()) == ()
    with pytest.raises(ConfigError, match="has no module videode") as caught:
        builder.take(("mc", "videode"))
    assert caught.value.hint.startswith("did you mean videodev")


def test_helpers_come_before_the_modules_under_test_each_once_with_their_parameters(
    builder: needs.Builder,
) -> None:
    helper = replace(STOCK, label="video_dev2")
    first = builder.take_first(("mc",), (helper, helper))
    assert [one.name for one in first] == ["mc", "videodev", "video_dev2"]
    assert first[-1].parameters == ("debug=1",)
    other = NeededModule(name="mc", path=Path("/other.ko"))
    last = NeededModule(name="last", path=Path("/last.ko"))
    assert needs.plan_order((*first, other, last)) == (*first, last)


def test_a_build_brings_its_parameters_and_its_siblings(
    builder: needs.Builder, make_elf: MakeElf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m/sub").mkdir(parents=True)
    (tmp_path / "m/Kbuild").write_text("obj-m := $(N).o\n")
    stage = tmp_path / "out/build" / RELEASE / "m_user"

    def run(_: object) -> None:
        (stage / "sub").mkdir(exist_ok=True)
        for name, depends in (("m_user", "m_core"), ("sub/m-core", "mc")):
            info = {"vermagic": f"{RELEASE} SMP ", "depends": depends}
            info |= {"name": Path(name).name.replace("-", "_")}
            (stage / f"{name}.ko").write_bytes(make_elf(info, (GCC,), ("init_module",)))

    monkeypatch.setattr(process, "run", run)
    module = ModuleSpec(label="m", name="m_user", sources="m", parameters=("a=1",))
    made = builder.make(module)
    assert [one.path.name for one in made.needed] == ["mc.ko", "m-core.ko"]
    assert made.needed[1].path == stage / "sub/m-core.ko"
    monkeypatch.setattr(process, "run", None)
    again = builder.make(replace(module, parameters=("a=2",)))
    assert again == replace(made, up_to_date=True, parameters=("a=2",))
    # What it is loaded after is a part of the product.
    (stage / "sub/m-core.ko").write_bytes(b"")
    monkeypatch.setattr(process, "run", run)
    assert not builder.make(module).up_to_date

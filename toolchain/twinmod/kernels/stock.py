# SPDX-License-Identifier: GPL-2.0-only
"""A distribution's own kernel as a tree that Rust modules can be built in.

Debian's header packages hold no Rust crate. They are rebuilt here from the source package of the
same version, the same configuration and the same compilers, and refused where any of them, a name
that they export or a type's layout is not that of the kernel.
"""

import contextlib
import difflib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from twinmod.base import cache, process, sandbox
from twinmod.base.cache import CacheEntry, FoundEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import BuildError, ConfigError, MissingToolError
from twinmod.kernels import elf, kconfig, modules, proof
from twinmod.kernels import packages as kernels_packages
from twinmod.kernels.kconfig import VM_MODULES
from twinmod.kernels.model import CrateProof, KernelTree, Origin
from twinmod.kernels.modules import KernelModules, plan_module_name
from twinmod.kernels.packages import WORK
from twinmod.project.model import KernelSpec

#: Changed when the same configuration must give another tree.
FORMAT = "1"

#: Bytes on disk while a tree is made; measured for 7.3.4: 2.6 GB at the end.
DISK_BYTES = 4_000_000_000

BUILD_TIMEOUT_S = 1800.0

#: All of the kernel's modules, in its entry; one that an older twinmod made lacks it.
MODULES = "vm/modules.zip"

#: What a distribution's crates are compared with.
REFERENCE = "the stock kernel"


def plan_inside(
    chroot: Chroot, argv: tuple[str, ...], entry_dir: Path, purpose: str, *, log: str | None = None
) -> Command:
    """Return a command that works on a tree that is being made."""
    command = sandbox.plan_command(
        chroot,
        argv,
        Enter(
            binds=(
                Bind(source_path=entry_dir / "work", target_path=WORK, writable=True),
                Bind(source_path=entry_dir / "linux", target_path=sandbox.LINUX, writable=True),
                Bind(source_path=entry_dir / "build", target_path=sandbox.BUILD, writable=True),
            )
        ),
        purpose=purpose,
        timeout_s=BUILD_TIMEOUT_S,
    )
    return replace(command, log_path=entry_dir / log if log else None)


def unpack_packages(chroot: Chroot, entry_dir: Path) -> None:
    """Unpack the packages below work/pkg and the kernel's source into linux/; install nothing."""
    for name in ("linux", "build", "vm"):
        (entry_dir / name).mkdir(exist_ok=True)
    script = (
        f"set -e; rm -rf {WORK}/pkg; "
        f"for deb in {WORK}/deb/*.deb; do dpkg -x $deb {WORK}/pkg; done; "
        f"tar -x -f {WORK}/pkg/usr/src/linux-source-*.tar.xz -C {sandbox.LINUX} "
        "--strip-components=1 --no-same-owner"
    )
    purpose = "the kernel's packages were not unpacked"
    process.run(plan_inside(chroot, ("sh", "-c", script), entry_dir, purpose))


def find_in_packages(entry_dir: Path, pattern: str) -> Path:
    """Return the one file of the unpacked packages that a pattern names.

    Raises:
        BuildError: There is none.
    """
    found = sorted((entry_dir / "work/pkg").glob(pattern))
    if not found:
        raise BuildError(f"the kernel's packages hold no {pattern}")
    return found[0]


def require_options(spec: KernelSpec, options: Mapping[str, str]) -> None:
    """Refuse a kernel that a VM could not boot.

    Raises:
        ConfigError: It lacks what a VM needs.
    """
    lacking = kconfig.find_lacking(options)
    if lacking:
        raise ConfigError(
            f"a VM cannot boot the {spec.flavour} kernel of {spec.suite}: it lacks "
            f"{', '.join(lacking)}",
            hint='name another flavour in [tool.twinmod], such as "amd64"',
        )


def compare_configs(stock: str, rebuilt: str) -> None:
    """Refuse a tree whose configuration is not the stock kernel's.

    Raises:
        BuildError: They differ; the difference is among the facts.
    """
    if stock == rebuilt:
        return
    lines = difflib.unified_diff(
        stock.splitlines(), rebuilt.splitlines(), "stock", "rebuilt", n=0, lineterm=""
    )
    raise BuildError(
        "the rebuilt tree has another configuration than the stock kernel: the chroot's "
        "compilers are not those that built it",
        facts=(("difference", "\n" + "\n".join(list(lines)[:40])),),
        hint="name the suite that built this kernel as its `root` in the configuration",
    )


def plan_configure(options: Mapping[str, str], *targets: str) -> tuple[str, ...]:
    """Return make's argument vector that configures and prepares a tree as it was built.

    A kernel that was built where there was no rustc says so in its configuration; it must not
    find the chroot's.
    """
    cc = options["CONFIG_CC_VERSION_TEXT"].split()[0]
    rustc = () if options.get("CONFIG_RUSTC_VERSION", "0") != "0" else ("RUSTC=false",)
    return sandbox.plan_make((f"CC={cc}",), *rustc, *targets)


def configure_tree(chroot: Chroot, entry_dir: Path, spec: KernelSpec) -> Mapping[str, str]:
    """Configure the tree as the stock kernel was; return its options.

    Raises:
        BuildError: The configuration or the rustc is not the stock kernel's.
        ConfigError: A VM could not boot this kernel.
    """
    stock = find_in_packages(entry_dir, "usr/src/linux-headers-*/.config").read_text()
    options = kconfig.parse_options(stock)
    require_options(spec, options)
    config_path = entry_dir / "build/.config"
    config_path.write_text(stock)
    purpose = "the kernel's tree was not configured"
    argv = plan_configure(options, "olddefconfig")
    process.run(plan_inside(chroot, argv, entry_dir, purpose, log="olddefconfig.log"))
    compare_configs(stock, config_path.read_text())
    return options


def build_crates(chroot: Chroot, entry_dir: Path, options: Mapping[str, str]) -> CrateProof:
    """Build the tree's scripts, headers and Rust crates; compare rustc and exported names.

    Raises:
        BuildError: They do not build, or are not those of the stock kernel.
    """
    purpose = "the kernel's Rust crates were not rebuilt"
    argv = plan_configure(options, "prepare", "modules_prepare")
    process.run(plan_inside(chroot, argv, entry_dir, purpose, log="prepare.log"))
    headers = "usr/src/linux-headers-*"
    symvers = find_in_packages(entry_dir, f"{headers}/Module.symvers")
    shutil.copy(symvers, entry_dir / "build/Module.symvers")
    for name in ("include/generated/utsrelease.h", "include/config/kernel.release"):
        shutil.copy(find_in_packages(entry_dir, f"{headers}/{name}"), entry_dir / "build" / name)
    exports = elf.read_exports(entry_dir / "build")
    return prove_crates(chroot, options, exports, symvers.read_text())


def prove_crates(
    chroot: Chroot, options: Mapping[str, str], exports: tuple[str, ...], symvers: str
) -> CrateProof:
    """Return what shows that the stock kernel's rustc built the crates, and the same ones.

    The layouts of types are not part of it yet: see ensure_layouts.

    Raises:
        BuildError: It did not; the difference is among the facts.
    """
    if options.get("CONFIG_RUST") != "y":
        return CrateProof(reference=REFERENCE, rustc="", checked_symbols=0)
    wanted = options["CONFIG_RUSTC_VERSION_TEXT"]
    command = sandbox.plan_command(
        chroot, ("rustc", "--version"), purpose="rustc does not run", timeout_s=60
    )
    rustc = process.run(command).strip()
    missing = elf.compare_symbols(exports, symvers)
    if rustc != wanted or missing or not exports:
        raise BuildError(
            "the rebuilt Rust crates are not those of the stock kernel",
            facts=(
                ("rustc wanted", wanted),
                ("rustc found", rustc),
                ("checked symbols", str(len(exports))),
                ("missing", "\n".join(missing[:20])),
            ),
            hint="name the suite that built this kernel as its `root` in the configuration",
        )
    return CrateProof(
        reference=REFERENCE, rustc=rustc, checked_symbols=len(exports), uncompared=proof.PENDING
    )


def unpack_image(chroot: Chroot, entry_dir: Path) -> tuple[str, ...]:
    """Put the kernel's image and the VM's modules, decompressed, into vm/.

    Returns:
        The modules' file names, in load order.
    """
    image = find_in_packages(entry_dir, "**/vmlinuz*")
    inside = WORK / image.relative_to(entry_dir / "work")
    script = 'exec "$1" "$2" > "$3"'
    argv = (
        "sh",
        "-c",
        script,
        "sh",
        f"{sandbox.LINUX}/scripts/extract-vmlinux",
        str(inside),
        f"{WORK}/vmlinux",
    )
    process.run(plan_inside(chroot, argv, entry_dir, "the kernel's image was not unpacked"))
    shutil.move(entry_dir / "work/vmlinux", entry_dir / "vm/vmlinux")
    root = find_in_packages(entry_dir, "**/lib/modules/*/kernel")
    files = {
        plan_module_name(path).removesuffix(".ko"): path
        for folder in ("fs", "net/9p")
        for path in (root / folder).rglob("*.ko*")
    }
    found = elf.read_load_order(files, tuple(name for name, _ in VM_MODULES))
    for path, content in found:
        (entry_dir / "vm" / plan_module_name(path)).write_bytes(content)
    return tuple(plan_module_name(path) for path, _ in found)


def keep_modules(packages_dir: Path, entry_dir: Path) -> None:
    """Keep all modules of unpacked packages, compressed as they are.

    Raises:
        BuildError: They hold none.
    """
    found = next(packages_dir.glob("**/lib/modules/*/kernel"), packages_dir / "kernel")
    modules.write_archive(found.parent, entry_dir / MODULES)


def make_tree(
    spec: KernelSpec, chroot: Chroot, mirror: str, entry_dir: Path, progress: Progress
) -> Made:
    """Make a kernel tree in a folder of the cache; return its record and its vital files."""
    cache.require_disk(entry_dir, DISK_BYTES, f"the kernel of {spec.suite}")
    work_dir = entry_dir / "work"
    with progress.phase(f"kernel packages of {spec.suite}"):
        packages = kernels_packages.read_packages(spec, chroot, mirror, work_dir)
        progress.note(f"kernel {packages.release}, version {packages.version}")
        kernels_packages.download_packages(packages, chroot, work_dir)
    with progress.phase("kernel source and image"):
        unpack_packages(chroot, entry_dir)
        vm_modules = unpack_image(chroot, entry_dir)
        keep_modules(work_dir / "pkg", entry_dir)
    with progress.phase("kernel configuration"):
        options = configure_tree(chroot, entry_dir, spec)
    with progress.phase("kernel headers and Rust crates"):
        proved = build_crates(chroot, entry_dir, options)
    cache.remove_tree(work_dir)
    record = {
        "release": packages.release,
        "version": packages.version,
        "suite": spec.suite,
        "chroot": chroot.key,
        "cc": options["CONFIG_CC_VERSION_TEXT"].split()[0],
        "vm_modules": vm_modules,
        "proof": asdict(proved),
    }
    vital = (
        "vm/vmlinux",
        *(f"vm/{name}" for name in vm_modules),
        MODULES,
        "build/Module.symvers",
        "build/.config",
        "build/scripts/mod/modpost",
    )
    rust_dir = entry_dir / "build/rust"
    crates = tuple(str(path.relative_to(entry_dir)) for path in rust_dir.glob("*.rmeta"))
    return record, (*vital, *crates)


def ensure_layouts(tree: KernelTree, entry: FoundEntry, progress: Progress) -> KernelTree:
    """Return a stock kernel whose types are laid out as in its image's BTF.

    They are compared once; a tree that an older twinmod made need not be made again for it.

    Raises:
        BuildError: A type is laid out differently.
    """
    if not tree.proof.rustc or tree.proof.uncompared != proof.PENDING:
        return tree
    with (
        progress.phase("layouts of the kernel's types"),
        tempfile.TemporaryDirectory(prefix="twinmod-") as folder,
    ):
        proved = proof.prove_layouts(tree, Path(folder))
    record = {**entry.record, "proof": {**entry.record["proof"], **asdict(proved)}}
    # Where others own the cache, it is done again the next time.
    with contextlib.suppress(OSError):
        cache.write_record(entry.path, record, tuple(entry.record["vital"]))
    return replace(tree, proof=proved)


def add_modules(
    spec: KernelSpec, chroot: Chroot, mirror: str, entry: FoundEntry, progress: Progress
) -> None:
    """Keep all modules of a kernel whose entry an older twinmod made; the rest of it stays.

    Raises:
        MissingToolError: The suite serves them no longer, or they cannot be kept.
        ConfigError: The suite is gone.
    """
    release, version = entry.record["release"], entry.record["version"]
    try:
        with (
            cache.share(entry),
            progress.phase(f"modules of kernel {release}"),
            tempfile.TemporaryDirectory(dir=entry.path, prefix=".modules-") as folder,
        ):
            work_dir = Path(folder)
            packages = kernels_packages.read_modules_packages(
                spec, chroot, mirror, work_dir, (release, version)
            )
            kernels_packages.download_packages(packages, chroot, work_dir)
            _unpack_modules(chroot, work_dir)
            keep_modules(work_dir / "pkg", entry.path)
            cache.write_record(entry.path, entry.record, (*entry.record["vital"], MODULES))
    except OSError as error:
        raise MissingToolError(
            f"the modules of kernel {release} cannot be kept: {error.strerror or error}",
            facts=(("file", str(error.filename or entry.path)),),
        ) from error


def _unpack_modules(chroot: Chroot, work_dir: Path) -> None:
    """Unpack packages into pkg/ beside them; install nothing."""
    script = f"set -e; for deb in {WORK}/deb/*.deb; do dpkg -x $deb {WORK}/pkg; done"
    command = sandbox.plan_command(
        chroot,
        ("sh", "-c", script),
        Enter(binds=(Bind(source_path=work_dir, target_path=WORK, writable=True),)),
        purpose="the kernel's modules were not unpacked",
        timeout_s=BUILD_TIMEOUT_S,
    )
    process.run(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class StockKernel:
    """A suite's own kernel; see Kernel."""

    origin: ClassVar[Origin] = Origin.STOCK

    spec: KernelSpec
    chroot: Chroot
    # Where its packages are.
    mirror: str

    @property
    def _entry(self) -> CacheEntry:
        spec, chroot = self.spec, self.chroot

        def make(entry_dir: Path, progress: Progress) -> Made:
            return make_tree(spec, chroot, self.mirror, entry_dir, progress)

        key = cache.plan_key(spec.name, (FORMAT, spec.suite, spec.flavour, spec.series, chroot.key))
        # An interrupted download goes on where it was.
        return CacheEntry(kind="kernel", key=key, make=make, keep=("work",))

    @property
    def key(self) -> str:
        """It follows from the suite, not from the version that it serves today."""
        return self._entry.key

    @property
    def folders(self) -> tuple[tuple[str, str], ...]:
        """See Kernel."""
        return self._entry.folders

    def find(self) -> KernelTree | None:
        """See Kernel."""
        entry = self._entry.find()
        return self._read_tree(entry) if entry else None

    def ensure(self, progress: Progress) -> KernelTree:
        """See Kernel; its crates' types are compared when they were not yet."""
        entry = self._entry.ensure(progress)
        return ensure_layouts(self._read_tree(entry), entry, progress)

    def ensure_modules(self, progress: Progress) -> KernelModules:
        """See Kernel; they are fetched for an entry that an older twinmod made."""
        entry = self._entry.ensure(progress)
        if MODULES not in entry.record["vital"]:
            add_modules(self.spec, self.chroot, self.mirror, entry, progress)
        return modules.read_archive(entry.path / MODULES, entry.record["release"])

    def read_chosen_options(self) -> Mapping[str, str]:
        """Return none: its distribution chose them."""
        return {}

    def _read_tree(self, entry: FoundEntry) -> KernelTree:
        record = entry.record
        return KernelTree(
            name=self.spec.name,
            release=record["release"],
            version=record["version"],
            origin=self.origin,
            suite=record["suite"],
            source_dir=entry.path / "linux",
            build_dir=entry.path / "build",
            image_path=entry.path / "vm/vmlinux",
            vm_module_paths=tuple(entry.path / "vm" / name for name in record["vm_modules"]),
            compilers=self.chroot,
            make_flags=(f"CC={record['cc']}",),
            key=entry.key,
            parameters=self.spec.command_line,
            proof=proof.read_proof(record["proof"], proof.PENDING),
        )

# SPDX-License-Identifier: GPL-2.0-only
"""What a VM is made of: its parts, its plan, and the folder that it runs in."""

import shutil
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self, assert_never

from twinmod.base import sandbox, templates
from twinmod.base.cache import FoundEntry
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.builds.product import Product
from twinmod.cells.model import AnyCell, Cell, DifferentialCell, TurnsCell, YardsticksCell
from twinmod.guest import protocol
from twinmod.guest.protocol import (
    CellJob,
    CountJob,
    Delivery,
    DifferentialJob,
    Job,
    MatrixJob,
    MeasureJob,
    Measurement,
    Plan,
    PlannedCell,
    PlannedDevice,
    PlannedModule,
    TurnsJob,
)
from twinmod.kernels.model import KernelTree
from twinmod.project.model import Device, TesterSpec, VmSpec
from twinmod.userland import debs
from twinmod.userland.debs import Layer
from twinmod.vm import initramfs, machine
from twinmod.vm.machine import (
    LAYER,
    NATIVE,
    RESULTS,
    VIEW,
    VIEW_INSIDE,
    VM_DIR,
    Accelerator,
    AcceleratorName,
)

#: A VM's whole life, whatever it says; a soak has another one.
RUN_TIMEOUT_S = 1800.0

#: Of the VMs that look for faults. Debian's kernel zeroes every allocation, which would hide a
#: driver that forgets __GFP_ZERO. Huge pages of which a part is given back stay whole for a while,
#: and are then in no use that the kernel counts: they look like pages that a driver lost.
FAULT_PARAMETERS = "init_on_alloc=0 transparent_hugepage=never"

#: Added to the kernel's command line, by the job of the VM.
JOB_PARAMETERS = {Job.MATRIX: FAULT_PARAMETERS, Job.DIFFERENTIAL: FAULT_PARAMETERS}

#: The accelerators of VMs to which the host says nothing once they run.
MUTE = (AcceleratorName.ICOUNT, AcceleratorName.RECORD)

#: How many times as long a VM that counts may take to boot, and to say something: one thread
#: emulates all of it.
EXACT_PATIENCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Userland:
    """What the VM's programs are made of, beside the chroot itself."""

    site_dir: Path
    # (tester, the folder it is imported from)
    tester_dirs: tuple[tuple[TesterSpec, Path], ...]
    # Holds package/ with the agent, and matrix/.
    programs_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _CellsWork:
    """What every VM has to do that runs cells; becomes the agent's plan."""

    cells: tuple[AnyCell, ...]
    products: tuple[Product, ...]
    # Seconds that a cell may go without a step.
    limit_s: float

    def keep(self, cells: Container[AnyCell]) -> Self:
        """Return the same work with those of its cells alone."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell in cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixWork(_CellsWork):
    """Run the matrix on each module with each tester, and then the differential if it is there."""

    JOB: ClassVar[Job] = Job.MATRIX
    cells: tuple[Cell | DifferentialCell, ...]
    pytest_args: tuple[str, ...] = ()
    # By the name of a cell, the only tests of it that run; a cell that is not there runs all.
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Whether several VMs may share the tests of a cell.
    divisible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentialWork(_CellsWork):
    """Carry out on all modules the steps that the host asks for."""

    JOB: ClassVar[Job] = Job.DIFFERENTIAL
    cells: tuple[DifferentialCell, ...]
    # The VM's whole life, whatever it says.
    life_s: float = RUN_TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class CountWork(_CellsWork):
    """Count up on each module."""

    JOB: ClassVar[Job] = Job.COUNT
    cells: tuple[Cell, ...]
    threads: int
    increments: int
    # How a thread increments: lock, add or racy, as the testers have it.
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureWork(_CellsWork):
    """Make calls whose instructions are counted."""

    JOB: ClassVar[Job] = Job.MEASURE
    cells: tuple[Cell | YardsticksCell, ...]
    measurement: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsWork(_CellsWork):
    """Make calls of all modules in turns, by a clock."""

    JOB: ClassVar[Job] = Job.TURNS
    cells: tuple[TurnsCell, ...] = (TurnsCell(),)
    measurement: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellWork:
    """Give the console to a person, with all modules loaded; no cell runs."""

    JOB: ClassVar[Job] = Job.SHELL
    products: tuple[Product, ...]
    # Whether a debugger may come.
    gdb: bool = False


#: What a VM does that runs cells; its class is its job.
CellsWork = MatrixWork | DifferentialWork | CountWork | MeasureWork | TurnsWork

Work = CellsWork | ShellWork


@dataclass(frozen=True, slots=True, kw_only=True)
class BootPlan:
    """All that it takes to boot one VM; nothing has happened yet."""

    command: Command
    # None: another VM left it.
    initramfs: bytes | None
    agent_plan: Plan
    # What it runs; none of a VM that is replayed.
    cells: tuple[AnyCell, ...] = ()
    # Console, results and the plan of this VM.
    vm_dir: Path
    boot_timeout_s: float
    silence_timeout_s: float
    # What else is in its folder while it runs: by name, the content of files.
    files: Mapping[str, bytes] = field(default_factory=dict)
    # Whether all that stays in its folder.
    kept: bool = False
    # Whether the host tells QEMU what to do.
    monitored: bool = False
    # What it has beside the devices of every VM.
    devices: tuple[Device, ...] = ()
    # Of a clone: the saved VM that it goes on from, its state, as QEMU sees it, and what comes by
    # its port after its devices were plugged.
    origin: FoundEntry | None = None
    restored: str = ""
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every VM of a run has in common."""

    tree: KernelTree
    chroot: Chroot
    userland: Userland
    vm: VmSpec
    accelerator: Accelerator
    # What the modules say as theirs.
    version: str
    # Holds QEMU's plugins, and what VMs measure with.
    native_dir: Path
    # Whether VMs have what they measure with.
    measured: bool = False
    # What a VM has as its root instead of the chroot, whose Python it must have.
    root_dir: Path | None = None
    # The Debian packages that lie over it.
    layer: Layer | None = None
    # What VMs are cloned from; None: they boot.
    snapshot: FoundEntry | None = None
    # What they have beside the devices of every VM; a snapshot has none of them.
    devices: tuple[Device, ...] = ()
    # Of the VM whose clones count: what its random numbers follow from.
    seed: int = 0

    @property
    def counted(self) -> bool:
        """Whether the instructions of its VMs are counted."""
        return self.accelerator.name == AcceleratorName.ICOUNT


def plan_view(setting: Setting, products: tuple[Product, ...], vm_dir: Path) -> tuple[Bind, ...]:
    """Return what QEMU sees: the chroot again as the guest's root, and what the guest needs.

    Nothing else of the host can be reached from the guest.
    """
    inside = VIEW_INSIDE
    return (
        Bind(source_path=vm_dir, target_path=VM_DIR),
        Bind(source_path=vm_dir / "results", target_path=RESULTS, writable=True),
        Bind(source_path=setting.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
        Bind(source_path=setting.root_dir or setting.chroot.root_dir, target_path=VIEW),
        *((Bind(source_path=setting.layer.root_dir, target_path=LAYER),) if setting.layer else ()),
        *(
            Bind(source_path=path, target_path=inside / name)
            for name, path in plan_parts(setting, products).items()
        ),
        *plan_native(setting),
        *plan_disks(setting, vm_dir),
    )


def plan_disks(setting: Setting, vm_dir: Path) -> tuple[Bind, ...]:
    """Return what QEMU sees of a VM's disks; write_vm_dir makes them."""
    if not machine.plan_disks(setting.devices):
        return ()
    folder = vm_dir / machine.DISKS_FOLDER
    return (Bind(source_path=folder, target_path=machine.DISKS, writable=True),)


def plan_native(setting: Setting) -> tuple[Bind, ...]:
    """Return what QEMU sees of its plugins."""
    return (Bind(source_path=setting.native_dir, target_path=machine.NATIVE),)


def plan_parts(setting: Setting, products: tuple[Product, ...]) -> dict[str, Path]:
    """Return what lies in /twinmod of a VM: by name, the file or folder of the host."""
    userland = setting.userland
    return {
        "package": userland.programs_dir / "package",
        "site": userland.site_dir,
        "matrix": userland.programs_dir / "matrix",
        **{f"tester-{tester.name}": path for tester, path in userland.tester_dirs},
        **plan_module_files(products),
        **({"native": setting.native_dir} if setting.measured else {}),
    }


def plan_module_files(products: tuple[Product, ...]) -> dict[str, Path]:
    """Return the modules in /twinmod of a VM: by name, the file of the host."""
    needed = (module for product in products for module in product.needed)
    return {
        **{f"module/{product.file_name}": product.path for product in products},
        **{f"needed/{module.name}.ko": module.path for module in needed},
    }


def plan_needed(products: tuple[Product, ...]) -> dict[str, PlannedModule]:
    """Return what a VM loads before the modules under test; those are none of it."""
    under_test = {product.module for product in products}
    needed = (module for product in products for module in product.needed)
    return {
        one.name: PlannedModule(
            path=str(sandbox.INSIDE / f"needed/{one.name}.ko"), parameters=" ".join(one.parameters)
        )
        for one in needed
        if one.name not in under_test
    }


def plan_environment(userland: Userland) -> tuple[tuple[str, str], ...]:
    """Return the environment of the program inside the VM."""
    names = ("package", "site", *(f"tester-{tester.name}" for tester, _ in userland.tester_dirs))
    return (
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LC_ALL", "C.UTF-8"),
        ("HOME", "/tmp"),
        ("TERM", "linux"),
        ("PYTHONPATH", ":".join(str(sandbox.INSIDE / name) for name in names)),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        # What a plugin of another package would load costs a second when emulated.
        ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
    )


def plan_exact(setting: Setting) -> Setting:
    """Return the setting of VMs whose clocks count instructions: a nanosecond is one of them.

    Args:
        setting: Of other VMs.

    Source: qemu(1), ``-icount``: an instruction takes 2^0 ns, on one processor.
    """
    why = "a nanosecond of the guest's time is one instruction of it"
    return replace(
        setting,
        accelerator=Accelerator(name=AcceleratorName.ICOUNT, reason=why),
        measured=True,
        vm=plan_patience(replace(setting.vm, processors=1), EXACT_PATIENCE),
    )


def plan_patience(vm: VmSpec, times: float) -> VmSpec:
    """Return a VM that may take some times as long to boot, and to say something."""
    return replace(
        vm, boot_timeout_s=times * vm.boot_timeout_s, silence_timeout_s=times * vm.silence_timeout_s
    )


def plan_agent(setting: Setting, work: Work) -> Plan:
    """Return what the agent is told."""
    inside = sandbox.INSIDE
    paths = {(p.module, p.variant): str(inside / "module" / p.file_name) for p in work.products}
    return Plan(
        mode=work.JOB,
        port="",
        cells=tuple(_plan_cell(cell, job, paths) for cell, job in _plan_jobs(work)),
        modules={
            p.module: PlannedModule(
                path=paths[p.module, p.variant], parameters=" ".join(p.parameters)
            )
            for p in work.products
        },
        needed=plan_needed(work.products),
        testers={tester.name: tester.package for tester, _ in setting.userland.tester_dirs},
        matrix=str(inside / "matrix"),
        version=setting.version,
        limit_s=0.0 if isinstance(work, ShellWork) else work.limit_s,
        magic=str(NATIVE / "magic.so"),
        loop=str(NATIVE / "loop"),
        devices=tuple(
            PlannedDevice(model=device.driver, port=port)
            for device, port in zip(
                setting.devices, machine.plan_ports_of(setting.devices), strict=True
            )
        ),
        hotplug=bool(setting.devices) and setting.accelerator.name not in MUTE,
    )


def _plan_jobs(work: Work) -> tuple[tuple[AnyCell, CellJob], ...]:
    """Return the cells of a VM, each with its job."""
    job: CellJob
    match work:
        case MatrixWork():
            return tuple((cell, _plan_tests(cell, work)) for cell in work.cells)
        case DifferentialWork():
            return tuple((cell, DifferentialJob(package=cell.package)) for cell in work.cells)
        case CountWork():
            job = CountJob(threads=work.threads, increments=work.increments, method=work.method)
        case MeasureWork():
            job = MeasureJob(measurement=work.measurement)
        case TurnsWork():
            job = TurnsJob(measurement=work.measurement)
        case ShellWork():
            return ()
        case _:
            assert_never(work)
    return tuple((cell, job) for cell in work.cells)


def _plan_tests(cell: Cell | DifferentialCell, work: MatrixWork) -> CellJob:
    if isinstance(cell, DifferentialCell):
        return DifferentialJob(package=cell.package)
    return MatrixJob(
        pytest_args=work.pytest_args,
        rules=cell.rules,
        files=cell.files,
        tests=work.tests.get(cell.name, ()),
    )


def _plan_cell(cell: AnyCell, job: CellJob, paths: Mapping[tuple[str, str], str]) -> PlannedCell:
    """Return a cell as its VM knows it.

    Args:
        cell: The cell.
        job: What it is there for.
        paths: By module and variant, the file in the VM.
    """
    planned = PlannedCell(name=cell.name, module="", tester="", path="", job=job)
    match cell:
        case Cell():
            path = paths[cell.module, cell.variant]
            return replace(planned, module=cell.module, tester=cell.tester, path=path)
        case YardsticksCell():
            return replace(planned, tester=cell.tester)
        case TurnsCell() | DifferentialCell():
            return planned
        case _:
            assert_never(cell)


def prepare_boot(setting: Setting, work: Work, vm_dir: Path) -> BootPlan:
    """Plan one VM.

    Args:
        setting: What it is made of.
        work: What it is to do.
        vm_dir: Its own folder; must not exist.
    """
    shell = isinstance(work, ShellWork)
    gdb = isinstance(work, ShellWork) and work.gdb
    qemu = machine.plan_qemu(
        setting.vm,
        setting.accelerator.name,
        interactive=shell,
        gdb=gdb,
        parameters=plan_parameters(setting, work, "nokaslr" if gdb else ""),
    )
    qemu += machine.plan_layer() if setting.layer else ()
    qemu += machine.plan_devices(setting.devices)
    qemu += machine.MONITORED if setting.devices and not shell else ()
    entered = sandbox.plan_enter(
        setting.chroot,
        qemu,
        Enter(
            binds=plan_view(setting, work.products, vm_dir),
            hidden=(VIEW_INSIDE,),
            terminal=shell,
            devices=("/dev/kvm",) if setting.accelerator.name == AcceleratorName.KVM else (),
        ),
    )
    life_s = work.life_s if isinstance(work, DifferentialWork) else RUN_TIMEOUT_S
    command = Command(
        argv=entered,
        purpose="the VM did not run",
        log_path=vm_dir / "qemu.log",
        timeout_s=life_s,
    )
    return BootPlan(
        command=command,
        initramfs=initramfs.plan_archive(read_first_content(setting)),
        agent_plan=plan_agent(setting, work),
        cells=() if isinstance(work, ShellWork) else work.cells,
        vm_dir=vm_dir,
        boot_timeout_s=setting.vm.boot_timeout_s,
        silence_timeout_s=setting.vm.silence_timeout_s,
        monitored=bool(setting.devices) and not shell,
        devices=setting.devices,
    )


def plan_parameters(setting: Setting, work: Work, more: str) -> str:
    """Return what a VM adds to the kernel's command line."""
    return " ".join((JOB_PARAMETERS.get(work.JOB, ""), *setting.tree.parameters, more))


def read_first_content(setting: Setting) -> initramfs.Content:
    """Return what a VM has in memory that has its root from the host."""
    module_paths = setting.tree.vm_module_paths
    busybox = (setting.chroot.root_dir / "usr/bin/busybox").read_bytes()
    init = _render_init(setting, tuple(path.name for path in module_paths), whole=False)
    return initramfs.Content(
        folders=("bin", "modules", "proc", "dev", "lower", "layer", "upper", "newroot"),
        files=(
            ("bin/busybox", busybox),
            *((f"modules/{path.name}", path.read_bytes()) for path in module_paths),
            ("init", init),
        ),
    )


def read_whole_content(
    setting: Setting,
    agent_plan: Plan,
    parts: Mapping[str, Path],
    vm_module_paths: tuple[Path, ...] = (),
    *,
    packages: bool = True,
) -> initramfs.Content:
    """Return what a VM has in memory that has nothing else.

    Args:
        setting: What it is made of.
        agent_plan: What it is to do.
        parts: What lies in its /twinmod, as plan_parts has it.
        vm_module_paths: The kernel's own modules that it loads.
        packages: Whether all is in it that lies over the root.
    """
    additions = ((PurePosixPath(sandbox.INSIDE / name), path) for name, path in parts.items())
    below_dir, layer = setting.chroot.root_dir, setting.layer
    root = initramfs.read_root(
        below_dir,
        additions,
        layer.root_dir if layer else None,
        debs.iterate_names(layer, below_dir) if layer and packages else (),
    )
    for name in ("proc", "dev", "sys", "tmp", "results"):
        root.add_folder(name)
    if setting.measured:
        root.add(initramfs.SETARCH)
    for path in vm_module_paths:
        root.add_content(f"modules/{path.name}", path.read_bytes())
    names = tuple(path.name for path in vm_module_paths)
    root.add_content("results/plan.json", protocol.render_plan(agent_plan).encode())
    root.add_content("init", _render_init(setting, names, whole=True))
    return root.plan_content()


def _render_init(setting: Setting, vm_modules: tuple[str, ...], *, whole: bool) -> bytes:
    return templates.render_template(
        "init.j2",
        {
            "probe": "",
            "vm_modules": vm_modules,
            # 0: the sources are on the host, as they are.
            "source_time": initramfs.SOURCE_TIME if whole else 0,
            "counted": setting.measured,
            "layered": setting.layer is not None,
            "environment": plan_environment(setting.userland),
        },
    ).encode()


@contextmanager
def write_vm_dir(plan: BootPlan) -> Iterator[None]:
    """Make a VM's folder; what it boots from is there until the context is left."""
    (plan.vm_dir / "results").mkdir(parents=True)
    (plan.vm_dir / "results/plan.json").write_text(protocol.render_plan(plan.agent_plan))
    initramfs_path = plan.vm_dir / "initramfs"
    disks_dir = plan.vm_dir / machine.DISKS_FOLDER
    for name, size in machine.plan_disks(plan.devices).items():
        disks_dir.mkdir(exist_ok=True)
        with (disks_dir / name).open("xb") as disk:
            disk.truncate(size)
    if plan.initramfs is not None:
        initramfs_path.write_bytes(plan.initramfs)
    for name, content in plan.files.items():
        (plan.vm_dir / name).parent.mkdir(exist_ok=True)
        (plan.vm_dir / name).write_bytes(content)
    try:
        yield
    finally:
        for path in () if plan.kept else (initramfs_path, *(plan.vm_dir / n for n in plan.files)):
            path.unlink(missing_ok=True)
        # They go with their VM.
        shutil.rmtree(disks_dir, ignore_errors=True)

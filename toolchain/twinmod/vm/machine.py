# SPDX-License-Identifier: GPL-2.0-only
"""The machine of a VM: QEMU's arguments and the kernel's command line.

QEMU runs inside the chroot, so it is the same everywhere, sees nothing of the host but what is
bound into its view, and dies with its caller.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from twinmod.base import sandbox
from twinmod.guest import fwcfg
from twinmod.project import devices as project_devices
from twinmod.project.model import Backing, Bus, Device, Property, VmSpec

VIEW = PurePosixPath("/view")
VIEW_INSIDE = VIEW / "twinmod"
#: A VM's folder, as QEMU sees it.
VM_DIR = sandbox.INSIDE / "run"
RESULTS = VM_DIR / "results"

#: Where a recording is, as QEMU sees it.
RECORDING = sandbox.INSIDE / "recording"
EXECUTION = RECORDING / "execution"

#: QEMU's plugins, what a VM's programs tell one of them with, and one of these programs.
NATIVE = sandbox.INSIDE / "native"
COUNTS = "counts"

#: What lies over the chroot in a VM that boots, as QEMU sees it.
LAYER = sandbox.INSIDE / "layer"

#: How QEMU shares a folder that a VM may only read.
READ_ONLY = "security_model=none,readonly=on,multidevs=remap"

#: Counts by function.
PROFILER = ("-plugin", f"{NATIVE}/profiler.so,out={RESULTS}/{COUNTS}")

#: Gives the host's processor away when one of the guest's waits for another: clones have more of
#: them together than the host has.
PAUSE = ("-plugin", f"{NATIVE}/pause.so")

#: What a clone that counts is given, in its VM's folder.
DELIVERY = "delivery.json"

#: Where a VM waits for gdb, as both see it: the path of the host may be too long for a socket.
GDB_SOCKET = RESULTS / "gdb.sock"

#: Where QEMU is told what to do with a VM, among its results.
MONITOR = "monitor.sock"

#: Lets QEMU be told.
MONITORED = ("-qmp", f"unix:{RESULTS / MONITOR}")

#: Where a VM says its events whose standard output is a terminal.
EVENTS_SOCKET = "events.sock"

#: Expedited grace periods: loads and unloads, of which the matrix makes a hundred a cell, wait
#: for several each.
KERNEL_PARAMETERS = (
    "console=ttyS0",
    "loglevel=5",
    "panic=-1",
    "oops=panic",
    "random.trust_cpu=on",
    "rcupdate.rcu_expedited=1",
    # What the agent says is as whole as what the kernel says.
    "printk.devkmsg=on",
)

#: What decides how many instructions a guest takes. Without its fast string instructions a
#: processor copies 8 bytes an instruction; with them it would copy anything in one, or in one per
#: byte.
COUNTING_MACHINE = (
    "-accel",
    "tcg",
    "-icount",
    "shift=0,sleep=off",
    "-cpu",
    "max,-erms,-fsrm,-fsrs",
)


class AcceleratorName(StrEnum):
    """What QEMU runs a guest on."""

    KVM = "kvm"
    TCG = "tcg"
    # TCG that counts instructions.
    ICOUNT = "icount"
    # TCG on one thread, whose run can be replayed.
    RECORD = "record"


#: What QEMU is told of it.
MACHINES = {
    AcceleratorName.KVM: ("-accel", "kvm", "-cpu", "host"),
    AcceleratorName.TCG: ("-accel", "tcg,thread=multi", "-cpu", "max", *PAUSE),
    AcceleratorName.ICOUNT: COUNTING_MACHINE,
    # An instruction takes 2 ns of the guest's time.
    AcceleratorName.RECORD: (
        "-accel",
        "tcg",
        "-icount",
        f"shift=1,rr=record,rrfile={EXECUTION}",
        "-cpu",
        "max",
    ),
}

#: Added to KERNEL_PARAMETERS, by accelerator. Emulated processors share one time stamp counter, and
#: a kernel that does not believe it can hang: in watchdog_check_skew() of Linux 7.3, in
#: kernel/time/clocksource.c, two processors wait for each other with interrupts off, for as long as
#: a clock allows that stands still when it is jiffies. Seen in one of some twenty boots on a host
#: with more to do than it has processors.
ACCELERATOR_PARAMETERS = {
    AcceleratorName.TCG: ("tsc=reliable",),
    # The guest's clocks are its count of instructions.
    AcceleratorName.ICOUNT: ("tsc=reliable", "clocksource=tsc"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What a VM runs on, and why."""

    name: AcceleratorName
    reason: str


#: How many root ports the machine of a snapshot has. Each takes one device of a clone, and a port
#: cannot be added to a VM that runs.
PORTS = 4

#: The slot of the first one on the root bus, behind those that QEMU chooses itself.
FIRST_SLOT = 0x10

#: Where the disks of a VM are, as QEMU sees it, and below the VM's folder.
DISKS = sandbox.INSIDE / "disks"
DISKS_FOLDER = "disks"

#: What twinmod adds for devices on USB; with its own number of ports, none is behind a hub.
OWN_XHCI = "usb"
OWN_XHCI_PORTS = {"p2": 15, "p3": 15}


def plan_booting(vm: VmSpec, accelerator: AcceleratorName, parameters: str) -> tuple[str, ...]:
    """Return how QEMU's argument vector begins of a VM that boots; see plan_qemu."""
    return (
        "qemu-system-x86_64",
        "-M",
        "q35",
        *MACHINES[accelerator],
        "-smp",
        str(vm.processors),
        "-m",
        str(vm.memory_mib),
        *PLAIN,
        *plan_kernel(accelerator, parameters),
    )


def plan_qemu(
    vm: VmSpec,
    accelerator: AcceleratorName,
    *,
    interactive: bool = False,
    gdb: bool = False,
    parameters: str = "",
) -> tuple[str, ...]:
    """Return QEMU's argument vector, as it is called inside the chroot.

    Args:
        vm: Memory and processors.
        accelerator: What it runs on.
        interactive: The console is the caller's terminal, and there is no other way out.
        gdb: A debugger may come at any time.
        parameters: Added to the kernel's command line.
    """
    return (
        *plan_booting(vm, accelerator, parameters),
        "-virtfs",
        f"local,path={VIEW},mount_tag=root,{READ_ONLY}",
        "-virtfs",
        f"local,path={RESULTS},mount_tag=results,security_model=none",
        *(plan_gdb_stub() if gdb else ()),
        *(INTERACTIVE if interactive else PORT),
    )


def plan_layer() -> tuple[str, ...]:
    """Return the arguments of QEMU for what lies over the root of a VM that boots.

    It is shared on its own, not below VIEW: overlayfs refuses a layer that lies in another one.
    """
    return ("-virtfs", f"local,path={LAYER},mount_tag=layer,{READ_ONLY}")


def plan_recorded_qemu(vm: VmSpec, parameters: str) -> tuple[str, ...]:
    """Return QEMU's argument vector of a VM whose run can be replayed.

    It has no device that QEMU does not replay: its events have a serial line.

    Args:
        vm: Memory and processors.
        parameters: Added to the kernel's command line.
    """
    return (
        *plan_booting(vm, AcceleratorName.RECORD, parameters),
        *CONSOLE,
        *EVENTS,
        "-serial",
        "chardev:events",
    )


def plan_counting_qemu(vm: VmSpec, parameters: str) -> tuple[str, ...]:
    """Return QEMU's argument vector of a VM that boots, and whose instructions are counted.

    Args:
        vm: Memory and processors.
        parameters: Added to the kernel's command line.
    """
    return (
        *plan_booting(vm, AcceleratorName.ICOUNT, parameters),
        *PROFILER,
        *COUNTING_PORT,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMemory:
    """The memory of a VM that is saved, or that goes on from a state; or both."""

    # The file that is all of it, as QEMU sees it.
    path: str
    # Whether the VM goes on from a state, and boots nothing.
    restored: bool = False
    # Whether it maps the file privately, and leaves it as it is.
    private: bool = False
    # Of a VM that counts: what its random numbers follow from.
    seed: int = 0


def plan_saved_qemu(
    vm: VmSpec,
    accelerator: AcceleratorName,
    memory: SavedMemory,
    parameters: str,
    *,
    interactive: bool = False,
) -> tuple[str, ...]:
    """Return QEMU's argument vector of a VM that is saved, or that goes on from a state.

    All have the same devices, and the same ports for more: a state fits no other machine.

    Args:
        vm: Memory and processors.
        accelerator: What it runs on.
        memory: Where it lies.
        parameters: Added to the kernel's command line.
        interactive: The console is the caller's terminal, and events have a socket.

    Source: docs/devel/migration/features.rst and qemu(1), QEMU 10.0: what is in a shared file stays
    there, with x-ignore-shared.
    """
    backend = f"memory-backend-file,id=ram,size={vm.memory_mib}M,mem-path={memory.path}"
    return (
        "qemu-system-x86_64",
        "-M",
        "q35,memory-backend=ram",
        "-object",
        f"{backend},share=off,readonly=on,rom=off" if memory.private else f"{backend},share=on",
        *MACHINES[accelerator],
        "-smp",
        str(vm.processors),
        "-m",
        str(vm.memory_mib),
        *PLAIN,
        # The kernel of a VM that goes on is in its memory.
        *(() if memory.restored else plan_kernel(accelerator, parameters)),
        *plan_ports(PORTS),
        *plan_saved_port(accelerator, memory, interactive=interactive),
        *MONITORED,
        *(("-incoming", "defer") if memory.restored else ()),
    )


def plan_saved_port(
    accelerator: AcceleratorName, memory: SavedMemory, *, interactive: bool
) -> tuple[str, ...]:
    """Return the ways out of a VM that is saved, or goes on; see plan_saved_qemu."""
    if accelerator == AcceleratorName.ICOUNT:
        return plan_determined(memory)
    return INTERACTIVE_PORT if interactive else PORT


def plan_determined(memory: SavedMemory) -> tuple[str, ...]:
    """Return more arguments of a VM that is saved, or goes on, and whose clones count.

    Nothing that they count depends on the host: its time, its randomness, when it delivers, and
    when it takes over what they say.
    """
    held = ("-fw_cfg", f"name={fwcfg.DELIVERY},file={VM_DIR / DELIVERY}")
    return (
        "-seed",
        str(memory.seed),
        "-rtc",
        "base=2026-01-01T00:00:00,clock=vm",
        *((*PROFILER, *held) if memory.restored else ()),
        *COUNTING_PORT,
    )


#: Nothing that was not asked for.
PLAIN = ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none")


def plan_kernel(accelerator: AcceleratorName, parameters: str) -> tuple[str, ...]:
    """Return the arguments of QEMU for the kernel that it boots; see plan_qemu."""
    added = (*ACCELERATOR_PARAMETERS.get(accelerator, ()), *parameters.split())
    return (
        "-kernel",
        str(sandbox.INSIDE / "vmlinux"),
        "-initrd",
        str(VM_DIR / "initramfs"),
        "-append",
        " ".join((*KERNEL_PARAMETERS, *added)),
    )


def plan_ports(count: int) -> tuple[str, ...]:
    """Return the arguments of QEMU for a number of root ports.

    Source: docs/pcie.txt, QEMU 10.0: a device is plugged into a port, and chassis tell ports apart.
    """
    places = ((f"port-{number}", FIRST_SLOT + number, number + 1) for number in range(count))
    return tuple(
        word
        for name, slot, chassis in places
        for word in ("-device", f"pcie-root-port,id={name},addr={slot:#x},chassis={chassis}")
    )


def plan_devices(devices: tuple[Device, ...]) -> tuple[str, ...]:
    """Return the arguments of QEMU for devices that are there from the start.

    Each is where a clone has it: behind the port of its number.
    """
    if not devices:
        return ()
    orders = (*plan_backings(devices), *plan_orders(devices))
    words = (word for order in orders for word in (order.option, json.dumps(order.arguments)))
    return (*plan_ports(max(PORTS, project_devices.count_ports(devices))), *words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What QEMU is told of a device or of what stands behind one."""

    # On its command line, and while the VM runs.
    option: str
    command: str
    arguments: Mapping[str, object]


def plan_backings(devices: tuple[Device, ...]) -> tuple[Order, ...]:
    """Return what makes the disks and the memories that stand behind devices."""
    return tuple(
        plan_backing(device, number)
        for number, device in enumerate(devices)
        if device.backing != Backing.NONE
    )


def plan_backing(device: Device, number: int) -> Order:
    """Return what makes the disk or the memory that stands behind a device.

    Source: qapi/block-core.json and qapi/qom.json, QEMU 10.0.
    """
    name = plan_backing_name(number)
    if device.backing == Backing.DISK:
        file = {"driver": "file", "filename": str(DISKS / name)}
        disk = {"driver": "raw", "node-name": name, "file": file}
        return Order(option="-blockdev", command="blockdev-add", arguments=disk)
    size = device.backing_mib << 20
    memory = {"qom-type": "memory-backend-ram", "id": name, "size": size, "share": True}
    return Order(option="-object", command="object-add", arguments=memory)


def plan_disks(devices: tuple[Device, ...]) -> dict[str, int]:
    """Return the files of a VM's disks: by name, the size in bytes."""
    return {
        plan_backing_name(number): device.backing_mib << 20
        for number, device in enumerate(devices)
        if device.backing == Backing.DISK
    }


def plan_orders(devices: tuple[Device, ...]) -> tuple[Order, ...]:
    """Return what makes devices, in an order in which the bus of each is there.

    A device on PCI is behind a root port of its own. Devices on USB are behind the first USB host
    controller, or behind one that is added when there is none.
    """
    own_xhci = Device(driver=project_devices.XHCI, properties=tuple(OWN_XHCI_PORTS.items()))
    controllers = [n for n, one in enumerate(devices) if one.driver == project_devices.XHCI]
    usb = plan_device_name(controllers[0]) if controllers else OWN_XHCI
    on_pci = [n for n, one in enumerate(devices) if one.bus == Bus.PCI]
    made = [plan_device(devices[n], n, f"port-{port}") for port, n in enumerate(on_pci)]
    added = not controllers and any(device.bus == Bus.USB for device in devices)
    if added:
        words = plan_device(own_xhci, 0, f"port-{len(on_pci)}")
        made.append({**words, "id": OWN_XHCI})
    buses = {Bus.USB: f"{usb}.0", Bus.ISA: "isa.0", Bus.I2C: "i2c"}
    made += [
        plan_device(device, number, buses[device.bus])
        for number, device in enumerate(devices)
        if device.bus != Bus.PCI
    ]
    return tuple(Order(option="-device", command="device_add", arguments=one) for one in made)


#: What a device calls what stands behind it.
BACKING_KEYS = {Backing.DISK: "drive", Backing.MEMORY: "memdev"}


def plan_device(device: Device, number: int, bus: str) -> Mapping[str, Property]:
    """Return a device as QEMU takes it, on its command line and when it is plugged.

    Args:
        device: The device.
        number: Of it among those of its VM, from 0 on.
        bus: What it is behind.
    """
    key = BACKING_KEYS.get(device.backing)
    behind = {key: plan_backing_name(number)} if key else {}
    own = {"driver": device.driver, "id": plan_device_name(number), "bus": bus}
    return {**dict(device.properties), **behind, **own}


def plan_backing_name(number: int) -> str:
    """Return QEMU's name of what stands behind a device, which is that of a disk's file."""
    return f"backing-{number}"


def plan_device_name(number: int) -> str:
    """Return QEMU's name of a device, by its number among those of its VM."""
    return f"device-{number}"


def plan_port_address(number: int) -> str:
    """Return the address of a port in the VM, as sysfs has it."""
    return f"0000:00:{FIRST_SLOT + number:02x}.0"


def plan_addresses(devices: tuple[Device, ...]) -> tuple[str, ...]:
    """Return the addresses of the root ports of a VM that have a device behind them."""
    return tuple(map(plan_port_address, range(project_devices.count_ports(devices))))


def plan_ports_of(devices: tuple[Device, ...]) -> tuple[str, ...]:
    """Return the address of the root port that each device is behind, "" of one not on PCI."""
    addresses = iter(plan_addresses(devices))
    return tuple(next(addresses) if one.bus == Bus.PCI else "" for one in devices)


def plan_gdb_stub() -> tuple[str, ...]:
    """Return the arguments of QEMU that let a debugger come."""
    return ("-gdb", f"unix:{GDB_SOCKET},server=on,wait=off")


#: The ways out of a VM: the terminal of a person; or its console in a file, and its events on
#: standard output, by a port.
INTERACTIVE = ("-serial", "mon:stdio")
CONSOLE = ("-serial", f"file:{RESULTS}/console.log")
EVENTS = ("-chardev", "stdio,id=events,signal=off")
PORT_DEVICE = ("-device", "virtserialport,chardev=events,name=twinmod")
PORT = (*CONSOLE, "-device", "virtio-serial-pci", *EVENTS, *PORT_DEVICE)

#: What a clone has whose console is a person's terminal: the devices of PORT.
INTERACTIVE_PORT = (
    *INTERACTIVE,
    "-device",
    "virtio-serial-pci",
    "-chardev",
    f"socket,id=events,path={RESULTS / EVENTS_SOCKET}",
    *PORT_DEVICE,
)

#: QEMU takes a line over while the VM writes it: a thread of its own would do so some day.
COUNTING_PORT = (*CONSOLE, "-device", "virtio-serial-pci,ioeventfd=off", *EVENTS, *PORT_DEVICE)

# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel's configuration says: its compilers, and whether a VM could boot it. Pure.

Source: Documentation/kbuild/kconfig-language.rst, kconfig.rst and llvm.rst, Linux 7.3.
"""

import re
from collections.abc import Mapping

#: Modules that a VM can load before its root is there, with the option that builds each of them.
VM_MODULES = (
    ("9pnet", "CONFIG_NET_9P"),
    ("9pnet_virtio", "CONFIG_NET_9P_VIRTIO"),
    ("9p", "CONFIG_9P_FS"),
    ("overlay", "CONFIG_OVERLAY_FS"),
)

#: What a VM needs built in. The menus among them are there because Kconfig drops, without a word,
#: what lies in a menu that is off.
VM_BUILTINS = (
    # the image that QEMU starts, and its processors: a race needs two
    "CONFIG_64BIT", "CONFIG_SMP", "CONFIG_HYPERVISOR_GUEST", "CONFIG_PVH",
    # its devices, its console, its end
    "CONFIG_PCI", "CONFIG_VIRTIO_MENU", "CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_CONSOLE",
    "CONFIG_TTY", "CONFIG_SERIAL_8250", "CONFIG_SERIAL_8250_CONSOLE", "CONFIG_ACPI",
    # the first program, which is a script, and what it mounts
    "CONFIG_BLK_DEV_INITRD", "CONFIG_BINFMT_ELF", "CONFIG_BINFMT_SCRIPT",
    "CONFIG_PROC_FS", "CONFIG_SYSFS", "CONFIG_TMPFS", "CONFIG_DEVTMPFS",
    "CONFIG_NET", "CONFIG_NETWORK_FILESYSTEMS",
    # the modules under test, and what the kernel says of them
    "CONFIG_MODULES", "CONFIG_MODULE_UNLOAD", "CONFIG_PRINTK", "CONFIG_BUG",
    "CONFIG_MAGIC_SYSRQ",
    # what the agent and the matrix call
    "CONFIG_MULTIUSER", "CONFIG_FUTEX", "CONFIG_EPOLL", "CONFIG_POSIX_TIMERS", "CONFIG_UNIX",
    "CONFIG_SHMEM", "CONFIG_MEMFD_CREATE", "CONFIG_USERFAULTFD", "CONFIG_VM_EVENT_COUNTERS",
)  # fmt: skip

#: What a VM cannot do with: our modules are not signed and use what they like of the kernel, and
#: our parameters must reach it.
VM_OBSTACLES = (
    "CONFIG_MODULE_SIG_FORCE", "CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY",
    "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY", "CONFIG_TRIM_UNUSED_KSYMS",
    "CONFIG_CMDLINE_OVERRIDE",
)  # fmt: skip


def parse_options(config: str) -> dict[str, str]:
    """Return the options that a .config or an auto.conf sets, by name, strings without quotes."""
    pairs = (line.partition("=") for line in config.splitlines() if line.startswith("CONFIG_"))
    return {name: _unquote(value) for name, _, value in pairs}


def _unquote(value: str) -> str:
    """Return a value as auto.conf has it: .config has it in quotes."""
    if len(value) < 2 or not value.startswith('"'):
        return value
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def compare_options(config: Mapping[str, str], built: Mapping[str, str]) -> tuple[str, ...]:
    """Return the options that two configurations have with different values, sorted."""
    names = sorted({*config, *built})
    return tuple(name for name in names if config.get(name) != built.get(name))


def find_lacking(options: Mapping[str, str]) -> tuple[str, ...]:
    """Return what keeps a VM from booting a kernel and from testing modules there.

    Returns:
        The options that are missing, then those that are in the way as ``CONFIG_X=n``.
    """
    lacking = [name for name in VM_BUILTINS if options.get(name) != "y"]
    lacking += [option for _, option in VM_MODULES if options.get(option) not in ("y", "m")]
    lacking += [f"{name}=n" for name in VM_OBSTACLES if options.get(name) == "y"]
    return tuple(lacking)


def find_vm_modules(options: Mapping[str, str]) -> tuple[str, ...]:
    """Return the modules that a VM must load, those that are built in left out."""
    return tuple(name for name, option in VM_MODULES if options.get(option) == "m")


def plan_compilers(options: Mapping[str, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return how the C compiler that a configuration names may be called, the likeliest first.

    Returns:
        (program, make's variables) each. gcc prints its own name; clang does not, and may have its
        version in it.
    """
    text = options.get("CONFIG_CC_VERSION_TEXT", "")
    if not text:
        return ()
    if options.get("CONFIG_CC_IS_CLANG") != "y":
        program = text.split()[0]
        return ((program, (f"CC={program}", *_plan_linker(options))),)
    assembler = ("LLVM_IAS=0",) if options.get("CONFIG_AS_IS_GNU") == "y" else ()
    suffix = f"-{int(options.get('CONFIG_CLANG_VERSION', '0')) // 10000}"
    if options.get("CONFIG_LD_IS_LLD") == "y":
        return (
            ("clang", ("LLVM=1", *assembler)),
            (f"clang{suffix}", (f"LLVM={suffix}", *assembler)),
        )
    names = ("clang", f"clang{suffix}")
    return tuple((name, (f"CC={name}", *assembler)) for name in names)


def _plan_linker(options: Mapping[str, str]) -> tuple[str, ...]:
    return ("LD=ld.lld",) if options.get("CONFIG_LD_IS_LLD") == "y" else ()


def find_rustc(options: Mapping[str, str]) -> str:
    """Return what ``rustc --version`` must print, "" for a kernel without Rust."""
    return options["CONFIG_RUSTC_VERSION_TEXT"] if options.get("CONFIG_RUST") == "y" else ""

# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel's configuration says: its compilers, and whether a VM could boot it. Pure.

Source: Documentation/kbuild/kconfig-language.rst, kconfig.rst and llvm.rst, Linux 7.3.
"""

import re
from collections.abc import Iterable, Mapping

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
    "CONFIG_64BIT",
    "CONFIG_SMP",
    "CONFIG_HYPERVISOR_GUEST",
    "CONFIG_PVH",
    # its devices, its console, its end
    "CONFIG_PCI",
    "CONFIG_VIRTIO_MENU",
    "CONFIG_VIRTIO_PCI",
    "CONFIG_VIRTIO_CONSOLE",
    "CONFIG_TTY",
    "CONFIG_SERIAL_8250",
    "CONFIG_SERIAL_8250_CONSOLE",
    "CONFIG_ACPI",
    # the first program, which is a script, and what it mounts
    "CONFIG_BLK_DEV_INITRD",
    "CONFIG_BINFMT_ELF",
    "CONFIG_BINFMT_SCRIPT",
    "CONFIG_PROC_FS",
    "CONFIG_SYSFS",
    "CONFIG_TMPFS",
    "CONFIG_DEVTMPFS",
    "CONFIG_NET",
    "CONFIG_NETWORK_FILESYSTEMS",
    # the modules under test, and what the kernel says of them
    "CONFIG_MODULES",
    "CONFIG_MODULE_UNLOAD",
    "CONFIG_PRINTK",
    "CONFIG_BUG",
    "CONFIG_MAGIC_SYSRQ",
    # what the agent and the matrix call
    "CONFIG_MULTIUSER",
    "CONFIG_FUTEX",
    "CONFIG_EPOLL",
    "CONFIG_POSIX_TIMERS",
    "CONFIG_UNIX",
    "CONFIG_SHMEM",
    "CONFIG_MEMFD_CREATE",
    "CONFIG_USERFAULTFD",
    "CONFIG_VM_EVENT_COUNTERS",
)

#: What a VM cannot do with: modules use what they like of the kernel, and our parameters must reach
#: it.
VM_OBSTACLES = ("CONFIG_TRIM_UNUSED_KSYMS", "CONFIG_CMDLINE_OVERRIDE")

#: With any of these a kernel takes signed modules alone, whatever its command line says.
ENFORCING = (
    "CONFIG_MODULE_SIG_FORCE",
    "CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY",
    "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY",
)

#: What each kernel has that twinmod builds, beside its own options.
BUILT = (
    *(f"{name}=y" for name in VM_BUILTINS),
    *(f"{option}=y" for _, option in VM_MODULES),
    "CONFIG_RUST=y",
    "CONFIG_IA32_EMULATION=y",
    # clocks and calls that Python and the tests have on every distribution's kernel
    "CONFIG_HIGH_RES_TIMERS=y",
    "CONFIG_SYSCTL=y",
    "CONFIG_PREEMPT=y",
    "CONFIG_SWAP=n",
    "CONFIG_COMPACTION=y",
    # what a fault's report is read by: names, lines, times, and who spoke
    "CONFIG_DEBUG_KERNEL=y",
    "CONFIG_DEBUG_FS=y",
    "CONFIG_KALLSYMS=y",
    "CONFIG_KALLSYMS_ALL=y",
    "CONFIG_DEBUG_INFO_DWARF5=y",
    "CONFIG_GDB_SCRIPTS=y",
    "CONFIG_PRINTK_TIME=y",
    "CONFIG_PRINTK_CALLER=y",
    "CONFIG_STACKTRACE=y",
    "CONFIG_DEBUG_BUGVERBOSE=y",
    # its log is long
    "CONFIG_LOG_BUF_SHIFT=20",
)

#: What watches a kernel: its name, the option, and how the symbols begin that a compiler makes code
#: call at each access, "" where the kernel itself does all of it. Those that a file calls once when
#: it begins are none: kbuild adds a little C to every module, and that calls them for Rust too.
WATCHERS = (
    ("KASAN", "CONFIG_KASAN", r"__asan_(?:report_)?(?:load|store)"),
    ("KCSAN", "CONFIG_KCSAN", r"__tsan_(?:unaligned_|volatile_|atomic\d|read|write)"),
    ("UBSAN", "CONFIG_UBSAN", r"__ubsan_handle_"),
    ("lockdep", "CONFIG_PROVE_LOCKING", ""),
    ("atomic sleep", "CONFIG_DEBUG_ATOMIC_SLEEP", ""),
    ("kmemleak", "CONFIG_DEBUG_KMEMLEAK", ""),
)


def find_watchers(
    options: Mapping[str, str], symbols: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what watches a module on a kernel, and what is there and does not.

    Args:
        options: The kernel's.
        symbols: All that the module's file names. KCSAN and UBSAN see what a compiler has
            instrumented for them, and rustc does that for neither.
    """
    there = [(name, call) for name, option, call in WATCHERS if options.get(option) == "y"]
    blind = tuple(
        name for name, call in there if call and not any(re.match(call, s) for s in symbols)
    )
    return tuple(name for name, _ in there if name not in blind), blind


def plan_line(text: str) -> str:
    """Return a wanted option as a line of a configuration: X is CONFIG_X=y, X=n CONFIG_X=n."""
    name, equals, value = text.partition("=")
    return f"CONFIG_{name}={value if equals else 'y'}"


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


def find_enforcement(options: Mapping[str, str], parameters: Iterable[str]) -> str:
    """Return why a kernel takes signed modules alone: an option, or a word of its command line.

    Args:
        options: The kernel's; an unset one has Kconfig's default.
        parameters: Added to its command line.

    Returns:
        "" when nothing does.

    Source: kernel/module/Kconfig, kernel/module/signing.c and security/lockdown, Linux 7.3.
    """
    own = options.get("CONFIG_CMDLINE", "") if options.get("CONFIG_CMDLINE_BOOL") == "y" else ""
    words = " ".join((own, *parameters)).split()
    given = {name.replace("-", "_"): value for name, _, value in (w.partition("=") for w in words)}
    has_lockdown = options.get("CONFIG_SECURITY_LOCKDOWN_LSM") == "y"
    in_order = "lockdown" in given.get("lsm", options.get("CONFIG_LSM", "lockdown")).split(",")
    locks = has_lockdown and (in_order or options.get("CONFIG_SECURITY_LOCKDOWN_LSM_EARLY") == "y")
    forced = [name for name in ENFORCING if options.get(name) == "y"]
    if "module.sig_enforce" in given and (has_lockdown or options.get("CONFIG_MODULE_SIG") == "y"):
        # As the kernel reads a parameter that is yes or no; it cannot be switched off again.
        forced += [
            word
            for word in words
            if re.fullmatch(r"module[.]sig[-_]enforce(=([1yYtTeE].*|[oO][nN].*))?", word)
        ]
    if locks and given.get("lockdown") in ("integrity", "confidentiality"):
        forced.append(f"lockdown={given['lockdown']}")
    return forced[0] if forced else ""


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

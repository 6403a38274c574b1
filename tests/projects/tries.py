# SPDX-License-Identifier: GPL-2.0-only
"""Projects of other people, as folders and commands: what each try does, and what it expects."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import page
from page import File
from twinmod.errors import ExitCode
from twinmod.project import starter

PAGE = Path(__file__).resolve().parents[2] / "docs/your-driver.md"

#: What a shell answers in a VM when it was typed into, and what is typed.
LINE = "echo $((6 * 7)) $(cut -d ' ' -f 1 /proc/modules | sort | tr '\\n' ' '); exit\n"

#: Debian's source packages for DKMS that are tried, and the suite that serves them.
SUITE = "sid"
PACKAGES = (
    "acpi-call-dkms",
    "dm-writeboost-dkms",
    "evdi-dkms",
    "lime-forensics-dkms",
    "v4l2loopback-dkms",
)

#: Where such a package has its sources, in a folder of its name and version.
SOURCES = "usr/src"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A call of twinmod."""

    arguments: tuple[str, ...]
    code: ExitCode = ExitCode.PASSED
    # A part of what it says, as a regular expression.
    says: str = ""
    # In the try's folder.
    folder: str = "."
    # What changes in that folder before the call.
    change: Callable[[Path], None] = lambda _: None
    # What gdb is asked in another terminal while this one, a shell, has a VM; "" for nothing.
    asked: str = ""
    # A part of what gdb answers, as a regular expression.
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """A folder, and what is done there."""

    name: str
    steps: tuple[Step, ...]
    # What is in the folder at first: files by path, or the sources of a Debian package.
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    package: str = ""


def test(*arguments: str) -> Step:
    """Return a test that passes, with a total of tests of which none failed."""
    return Step(arguments=("test", *arguments), says=r"[1-9]\d* passed, 0 failed, \d+ skipped")


# -- Debian's ---------------------------------------------------------------------------------


def add_parameters(folder: Path) -> None:
    """Add what docs/your-driver.md adds, to what `init` wrote."""
    path = folder / "twinmod.toml"
    # The memory's image goes nowhere.
    parameters = 'parameters = ["path=/dev/null", "format=raw"]'
    text, count = re.subn(r'(name = "lime") }', rf"\1, {parameters} }}", path.read_text())
    assert count == 1, text
    path.write_text(text)


def plan_foreign() -> tuple[Try, ...]:
    """Return the tries of Debian's packages: none is configured but lime, which has parameters."""
    steps: dict[str, tuple[Step, ...]] = {package: (test(),) for package in PACKAGES}
    steps["dm-writeboost-dkms"] = (
        Step(
            arguments=("test",),
            code=ExitCode.BUILD_FAILED,
            says=r"dm-writeboost-target\.c:\d+:\d+: error: ",
        ),
    )
    steps["lime-forensics-dkms"] = (
        Step(
            arguments=("test",),
            code=ExitCode.TESTS_FAILED,
            says=r"(?m)c failed: did not load: Invalid argument$",
        ),
        Step(arguments=("init",), says="wrote twinmod.toml"),
        Step(arguments=("test",), says="5 passed, 0 failed, 0 skipped", change=add_parameters),
    )
    return tuple(Try(name=name, package=name, steps=steps[name]) for name in PACKAGES)


# -- the page ---------------------------------------------------------------------------------


def plan_page(text: str) -> Try:
    """Return the try that docs/your-driver.md is: its files, and its commands in their order."""
    files, steps, folder = {}, [], Path()
    for one in page.parse_page(text):
        if isinstance(one, File):
            files[str(folder / one.name)] = one.text
            continue
        word, *arguments = one.words
        if word == "cd":
            folder = Path(*_resolve((*folder.parts, *Path(arguments[0]).parts)))
        elif word == "twinmod":
            steps.append(Step(arguments=tuple(arguments), folder=str(folder)))
        else:
            # A file makes its folder.
            assert word == "mkdir", one
    return Try(name="your-driver.md", files=files, steps=tuple(steps))


def _resolve(parts: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for part in parts:
        if part == "..":
            found.pop()
        else:
            found.append(part)
    return found


# -- what `new` makes -------------------------------------------------------------------------


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    """Return what replaces a text, which a file has once, by another one."""

    def change(folder: Path) -> None:
        text = (folder / path).read_text()
        assert text.count(old) == 1, (path, old)
        (folder / path).write_text(text.replace(old, new))

    return change


def add(path: str, text: str) -> Callable[[Path], None]:
    """Return what writes one more file."""

    def change(folder: Path) -> None:
        (folder / path).write_text(text)

    return change


#: Lets every user copy of a call fail.
FAILING_TEST = """\
import errno
import os
from collections.abc import Callable, Iterator

import pytest
from twinmod.guest.testing import Devices, Module, failures


@pytest.fixture
def own_code(module: Module) -> Iterator[None]:
    failures.prepare(failures.find_code(module))
    yield
    failures.prepare(failures.EVERYWHERE)


@pytest.mark.rule("R4")
@pytest.mark.fail_nth
@pytest.mark.usefixtures("own_code")
def test_a_copy_fails_whole(devices: Devices, mark_step: Callable[[], object]) -> None:
    device = os.open(devices.node, os.O_RDWR)
    os.write(device, b"kept")
    calls = {"read": lambda: os.pread(device, 4, 0), "write": lambda: os.write(device, b"new")}
    for name, call in calls.items():
        found = []
        for failure, _ in failures.iterate_failures(name, call, mark_step):
            found.append(failure.errno)
            assert os.pread(device, 4, 0) == b"kept"
        assert errno.EFAULT in found
    os.close(device)
"""

#: A store to where nothing is, in each language.
STORE_C = "*(volatile int *)8 = 1;"
STORE_RUST = (
    "// SAFETY: It is not.\n"
    "        unsafe { core::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };"
)

#: For each kind, the function that gdb is asked for, and where faults are put: a text, in C and in
#: Rust, before which there is room for a statement.
PLACES = {
    "misc": ("{}_c_read_iter", "if (iocb->ki_pos >= len)", "let pos = kiocb.ki_pos();"),
    "bare": (
        "{}_c_init",
        'pr_info("number is %d\\n", number);',
        "let number = module_parameters::number.value();",
    ),
}


def plan_new(kind: str) -> Try:
    """Return the try of all verbs on what `new` makes in both languages."""
    name = f"made-{kind}"
    words = name.replace("-", "_")
    function, place_c, place_rust = PLACES[kind]
    c, rust = f"c/{words}_c.c", f"rust/{words}_rust.rs"
    leak = "kmalloc(1000, GFP_KERNEL);"
    failing = replace(
        test("--kernel", "kasan", "-k", "fails_whole"),
        change=add("tests/test_failing.py", FAILING_TEST),
    )
    steps = (
        test(),
        test(),
        Step(arguments=("build",), says=rf"{words}_rust\.ko"),
        Step(arguments=("lint-kernel",)),
        Step(arguments=("matrix",), says=r"trixie-backports +c +yes"),
        Step(arguments=("mutate",), says=r"\d+ mutants in \d+ s: \d+ caught, .*0 survived"),
        test("--record"),
        Step(arguments=("replay", "out/test/vm-1"), says="the same"),
        test("--kernel", "kasan"),
        Step(arguments=("shell",), says=rf"42 .*{words}_c {words}_rust"),
        Step(
            arguments=("shell", "--kernel", "kasan", "--gdb"),
            says=rf"42 .*{words}_c {words}_rust",
            asked=f"info line {function.format(words)}",
            answer=rf"Line \d+ of .*{words}_c\.c",
        ),
        # A module without a device has no call to fail.
        *((failing,) if kind == "misc" else ()),
        Step(
            arguments=("test", "--module", "c"),
            code=ExitCode.KERNEL_FAULT,
            says=rf"{words}_c\.c:\d+",
            change=edit(c, place_c, f"{STORE_C}\n\t{place_c}"),
        ),
        Step(
            arguments=("test", "--module", "rust"),
            code=ExitCode.KERNEL_FAULT,
            says=rf"{words}_rust\.rs:\d+",
            change=edit(rust, place_rust, f"{STORE_RUST}\n        {place_rust}"),
        ),
        Step(
            arguments=("test", "--module", "c", "--kernel", "kasan"),
            code=ExitCode.KERNEL_FAULT,
            says="kmemleak",
            change=edit(c, f"{STORE_C}\n", f"{leak}\n"),
        ),
    )
    return Try(
        name=name,
        steps=(
            Step(
                arguments=("new", name, "--kind", kind, "--languages", "c,rust"),
                says=f"made {name}",
            ),
            *(replace(step, folder=name) for step in steps),
        ),
    )


def plan_alone() -> tuple[Try, ...]:
    """Return the tries of new projects in one language, and of a driver for a PCI device."""
    wanted = (("misc", "c"), ("misc", "rust"), ("bare", "rust"), ("pci", "c,rust"))
    return tuple(
        Try(
            name=f"{kind}-{languages}",
            steps=(
                Step(arguments=("new", "one", "--kind", kind, "--languages", languages)),
                replace(test(), folder="one"),
            ),
        )
        for kind, languages in wanted
    )


# -- other projects ---------------------------------------------------------------------------


def read_new(name: str, kind: str, *languages: str) -> dict[str, bytes]:
    """Return the files of a new project by path."""
    return dict(starter.make_files(starter.plan_project(name, kind, languages)))


def plan_rust_alone() -> Try:
    """Return the try of a folder with a Kbuild and a source in Rust, and no configuration."""
    source = read_new("alone", "bare", "rust")["rust/alone_rust.rs"]
    files: dict[str, str | bytes] = {"Kbuild": "obj-m := alone_rust.o\n", "alone_rust.rs": source}
    return Try(name="rust-alone", files=files, steps=(test(), test("--kernel", "kasan")))


def plan_two_drivers() -> Try:
    """Return the try of a project with two drivers, each in both languages."""
    files: dict[str, str | bytes] = {}
    tables = []
    for name, kind in (("first", "misc"), ("second", "bare")):
        new = read_new(name, kind, "c", "rust")
        table = new["twinmod.toml"].decode()
        files |= {f"{name}/{path}": new[path] for path in new if path != "twinmod.toml"}
        tables.append(
            re.sub(r'"(CONTRACT\.md|tests|mutants\.toml|c|rust)"', rf'"{name}/\1"', table)
        )
    return Try(
        name="two-drivers",
        files={**files, "twinmod.toml": "\n".join(tables)},
        steps=(test(), test("--driver", "second", "--module", "rust")),
    )


#: Modules of the kernel's source: in C and in Rust, each with what it is built as.
NULL_BLOCK = """\
[drivers.null.modules.c]
tree = "drivers/block/null_blk"
module = "null_blk"
config = ["BLK_DEV_NULL_BLK=m"]
parameters = ["nr_devices=0"]

[drivers.null.modules.rust]
tree = "drivers/block/rnull"
module = "rnull_mod"
config = ["BLK_DEV_RUST_NULL=m"]
"""

#: A driver that wants a helper, a module of the kernel, and a package, all there before it.
FIRST = """\
[drivers.last]
tests = "tests"
helpers = [{ sources = "helper", name = "helper", parameters = ["lent=7"] }]

[drivers.last.modules]
c = { sources = "c", name = "last", parameters = ["lent=8"] }

[drivers.last.vm]
modules = ["videodev"]
packages = ["bc"]
"""

#: What is built as either module.
EMPTY_MODULE = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>

static int lent;
module_param(lent, int, 0444);
MODULE_PARM_DESC(lent, "A number");

static int __init empty_init(void)
{
	return 0;
}
module_init(empty_init);

static void __exit empty_exit(void)
{
}
module_exit(empty_exit);

MODULE_DESCRIPTION("An empty module");
MODULE_LICENSE("GPL");
"""

FIRST_TESTS = """\
from pathlib import Path

from twinmod.guest.testing import Module


def test_others_come_first(module: Module) -> None:
    names = [line.split()[0] for line in Path("/proc/modules").read_text().splitlines()]
    # The newest stands first.
    order = [name for name in reversed(names) if name in ("videodev", "helper", module.name)]
    assert order == ["videodev", "helper", "last"]
    lent = [Path("/sys/module", name, "parameters/lent").read_text() for name in order[1:]]
    assert lent == ["7\\n", "8\\n"]


def test_they_stay(unloaded: Module) -> None:
    assert not Path("/sys/module", unloaded.name).exists()
    assert Path("/sys/module/helper").exists()


def test_the_package_is_there() -> None:
    assert Path("/usr/bin/bc").is_file()
"""


def plan_others() -> tuple[Try, ...]:
    """Return the tries of projects that somebody configured."""
    return (
        plan_rust_alone(),
        plan_two_drivers(),
        Try(name="null-block", files={"twinmod.toml": NULL_BLOCK}, steps=(test(),)),
        Try(
            name="first-others",
            files={
                "twinmod.toml": FIRST,
                "helper/helper.c": EMPTY_MODULE,
                "c/last.c": EMPTY_MODULE,
                "tests/test_first.py": FIRST_TESTS,
            },
            steps=(test(),),
        ),
    )


def plan_all() -> tuple[Try, ...]:
    """Return every try."""
    return (
        *plan_foreign(),
        plan_page(PAGE.read_text()),
        *(plan_new(kind) for kind in PLACES),
        *plan_alone(),
        *plan_others(),
    )

# SPDX-License-Identifier: GPL-2.0-only
"""What several tests start from: nouns with plain values, and files small enough to make here."""

import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from twinmod.base import commands
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.builds.product import Product
from twinmod.cells.report import CellEntry, FaultEntry, ModuleEntry, TestEntry, Totals
from twinmod.differential.report import DifferentialReport
from twinmod.guest.protocol import Outcome
from twinmod.kernels.model import CrateProof, Kernel, KernelEntry, KernelTree, Origin
from twinmod.kernels.stock import StockKernel
from twinmod.matrix.report import Phase, TestReport
from twinmod.project.model import KernelSpec, Language, ModuleSpec, TesterSpec, VmSpec
from twinmod.vm.machine import AcceleratorName

# No deadline: the machine may be busy with VMs. No database: a test leaves nothing behind.
hypothesis.settings.register_profile("unit", deadline=None, database=None, max_examples=60)
hypothesis.settings.load_profile("unit")
set_hypothesis_home_dir(Path(__file__).resolve().parents[2] / "out/hypothesis")

RELEASE = "7.3.4+deb13-amd64"

#: Takes (modinfo, comments, symbols), returns an ELF file that says exactly that.
MakeElf = Callable[[dict[str, str], tuple[str, ...], tuple[str, ...]], bytes]

#: Takes types, numbered from 1 on: (kind, name, size or type, words that follow, how many parts
#: those are, flag). A word that is text becomes its offset among the strings.
MakeBtf = Callable[[tuple[tuple[int, str, int, tuple[int | str, ...], int, bool], ...]], bytes]


@pytest.fixture(autouse=True)
def _language(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name commands as outside nox, although these tests may run in a session of it."""
    monkeypatch.delenv(commands.NOX_SESSION, raising=False)


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Take Ctrl-C as at a terminal, also where a shell has put us into the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def told() -> list[str]:
    """What the library told its caller: notes, and the titles of phases."""
    return []


@pytest.fixture
def progress(told: list[str]) -> Progress:
    class Kept:
        @contextmanager
        def phase(self, title: str) -> Iterator[None]:
            told.append(title)
            yield

        def note(self, text: str) -> None:
            told.append(text)

        def detail(self, text: str) -> None:
            told.append(text)

    return Kept()


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory that the library uses instead of the user's."""
    path = tmp_path / "cache"
    monkeypatch.setenv("TWINMOD_CACHE_DIR", str(path))
    return path


@pytest.fixture
def root() -> Chroot:
    return Chroot(
        name="trixie",
        suite="trixie",
        root_dir=Path("/cache/chroot/trixie-1/root"),
        key="trixie-1",
        mirror="http://mirror.example/debian",
    )


@pytest.fixture
def tree(root: Chroot) -> KernelTree:
    folder = Path("/cache/kernel/stock-1")
    return KernelTree(
        name="stock",
        release=RELEASE,
        version="7.3.4-1~bpo13+1",
        origin=Origin.STOCK,
        suite="trixie-backports",
        source_dir=folder / "linux",
        build_dir=folder / "build",
        image_path=folder / "vm/vmlinux",
        vm_module_paths=(folder / "vm/9p.ko",),
        compilers=root,
        make_flags=("CC=x86_64-linux-gnu-gcc-14",),
        key="stock-1",
        proof=CrateProof(
            reference="the stock kernel",
            checked_symbols=690,
            equal_layouts=3102,
            rustc="rustc 1.85.1 (4eb161250 2025-03-15) (Debian)",
            unknown_layouts=("struct drm_device", "typedef gpu_t"),
        ),
    )


@pytest.fixture
def kernel_spec() -> KernelSpec:
    return KernelSpec(name="stock", chroot="trixie", suite="trixie-backports", flavour="amd64")


@pytest.fixture
def stock_kernel(kernel_spec: KernelSpec, root: Chroot) -> StockKernel:
    return StockKernel(spec=kernel_spec, chroot=root, mirror="")


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeKernel(StockKernel):
    tree: KernelTree

    def find(self) -> KernelTree:
        return self.tree


@pytest.fixture
def as_kernel(stock_kernel: StockKernel) -> Callable[[KernelTree], Kernel]:
    """Takes a tree, returns a kernel that has been made as this tree."""
    spec, chroot = stock_kernel.spec, stock_kernel.chroot
    return lambda tree: MadeKernel(spec=spec, chroot=chroot, mirror="", tree=tree)


@pytest.fixture
def c_module() -> ModuleSpec:
    return ModuleSpec(label="c", name="mdriver_c", sources="c_module")


@pytest.fixture
def rust_module() -> ModuleSpec:
    return ModuleSpec(
        label="rust",
        name="mdriver_rust",
        sources="rust_module",
        in_tree="samples/rust/mdriver_rust",
    )


@pytest.fixture
def testers() -> tuple[TesterSpec, ...]:
    return (
        TesterSpec(name="c", project="c_tester", package="mdriver_tester_c"),
        TesterSpec(name="rust", project="rust_tester", package="mdriver_tester_rust"),
    )


@pytest.fixture
def vm() -> VmSpec:
    return VmSpec(
        memory_mib=1024,
        processors=2,
        boot_timeout_s=20.0,
        test_timeout_s=15.0,
        silence_timeout_s=25.0,
    )


@pytest.fixture
def product() -> Product:
    return Product(
        module="mdriver_c",
        label="c",
        language=Language.C,
        path=Path("/checkout/out/mdriver_c.ko"),
        size_bytes=415752,
        sha256="ab" * 32,
        vermagic=f"{RELEASE} SMP preempt mod_unload ",
        seconds=1.3,
        command="make modules",
        up_to_date=False,
    )


@pytest.fixture
def make_elf() -> MakeElf:
    """Return a writer of 64-bit little-endian relocatable files with three sections of ours.

    Source: System V ABI, "Sections" and "Symbol Table"; elf(5).
    """
    return _make_elf


def _make_elf(
    modinfo: dict[str, str], comments: tuple[str, ...], symbols: tuple[str, ...]
) -> bytes:
    names = b"\0.modinfo\0.comment\0.symtab\0.strtab\0.shstrtab\0"
    strings = b"\0" + b"".join(symbol.encode() + b"\0" for symbol in symbols)
    # st_name, st_info (STB_GLOBAL, STT_FUNC), st_other, st_shndx, st_value, st_size
    table = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0) + b"".join(
        struct.pack("<IBBHQQ", strings.index(b"\0" + symbol.encode() + b"\0") + 1, 0x12, 0, 1, 0, 0)
        for symbol in symbols
    )
    info = b"".join(f"{key}={value}".encode() + b"\0" for key, value in modinfo.items())
    comment = b"\0" + b"".join(text.encode() + b"\0" for text in comments)
    # (name, SHT_PROGBITS 1 / SHT_SYMTAB 2 / SHT_STRTAB 3, content, sh_link, sh_info, sh_entsize)
    sections = (
        (b".modinfo", 1, info, 0, 0, 0),
        (b".comment", 1, comment, 0, 0, 1),
        (b".symtab", 2, table, 4, 1, 24),
        (b".strtab", 3, strings, 0, 0, 0),
        (b".shstrtab", 3, names, 0, 0, 0),
    )
    body = b""
    headers = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    for name, kind, content, link, first, size in sections:
        headers += struct.pack(
            "<IIQQQQIIQQ",
            names.index(name + b"\0"),
            kind,
            0,
            0,
            64 + len(body),
            len(content),
            link,
            first,
            1,
            size,
        )
        body += content
    # ET_REL 1, EM_X86_64 62
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, 6, 5)
    )
    return header + body + headers


@pytest.fixture
def make_btf() -> MakeBtf:
    """Return a writer of BTF.

    Source: Documentation/bpf/btf.rst, Linux 7.3.
    """
    return _make_btf


def _make_btf(
    types: tuple[tuple[int, str, int, tuple[int | str, ...], int, bool], ...],
) -> bytes:
    strings = b"\0"
    offsets = {"": 0}

    def find_offset(text: str) -> int:
        nonlocal strings
        if text not in offsets:
            offsets[text] = len(strings)
            strings += text.encode() + b"\0"
        return offsets[text]

    body = b""
    for kind, name, value, words, parts, flag in types:
        numbers = (find_offset(word) if isinstance(word, str) else word for word in words)
        fields = (find_offset(name), flag << 31 | kind << 24 | parts, value, *numbers)
        body += struct.pack(f"<{len(fields)}I", *(field & 0xFFFFFFFF for field in fields))
    # magic, version, flags, length of the header; offset and length of types and of strings
    return (
        struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings))
        + body
        + strings
    )


#: One in which all steps agreed.
DIFFERENTIAL = DifferentialReport(
    outcome="passed",
    problems=(),
    kernel_faults=(),
    rounds=(),
    sequences=9,
    sequences_sha256="ab",
    steps=5571,
    seconds=1.0,
    steps_per_s=5571.0,
    carried_out={},
    refused={},
    failure=None,
)


@pytest.fixture
def test_report(product: Product) -> TestReport:
    """A run of the matrix in which a test failed."""
    tests = tuple(
        TestEntry(id=name, rule=rule, outcome=outcome, duration_s=0.1, message="")
        for name, rule, outcome in (
            ("a", "R1", Outcome.PASSED),
            ("b", "R2", Outcome.FAILED),
            ("c", "R1 R2", Outcome.PASSED),
        )
    )
    fault = FaultEntry(
        kind="kasan",
        test="b",
        modules=(),
        log="",
        lines=("BUG: KASAN: use-after-free", "  at: mdriver_read"),
        stacks=(),
    )
    module = ModuleEntry(
        module=product.module,
        language=product.language,
        sha256=product.sha256,
        watched_by=(),
        not_seen_by=(),
    )
    cell = CellEntry(
        module=product.module,
        tester="c",
        outcome=Outcome.FAILED,
        tests=tests,
        kernel_faults=(fault,),
        problems=(),
    )
    return TestReport(
        kernel=KernelEntry(release="7.3.4", origin="stock", suite="", rustc="", version=""),
        accelerator=AcceleratorName.TCG,
        accelerator_reason="",
        memory_mib=1024,
        narrowed="",
        long=False,
        boots=1,
        stalled_boots=0,
        modules=(module,),
        phases=(Phase(title="VM", seconds=9.0),),
        vm_phases=(),
        cells=(cell,),
        absent=(),
        differential=DIFFERENTIAL,
        injected=None,
        totals=Totals(passed=2, failed=1, skipped=0),
    )

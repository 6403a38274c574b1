# SPDX-License-Identifier: GPL-2.0-only
"""Calls of one kind, over and over: how many, on what memory, in which order."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from twinmod.base import process, templates
from twinmod.base.process import Command
from twinmod.bench import figures
from twinmod.cells.model import Counted
from twinmod.guest import measure
from twinmod.guest.measure import Buffers, Calls
from twinmod.guest.protocol import BufferKind, Operation, Regions, Timing

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("timing", "lengths"),
    [
        (Timing(operation=Operation.PREAD, size_bytes=1), (64, 128)),
        (Timing(operation=Operation.PREAD, size_bytes=65536), (4, 8)),
        (Timing(operation=Operation.PREAD, size_bytes=4 * MIB), (1, 2)),
        (Timing(operation=Operation.ADD), (64, 128)),
        (Timing(operation=Operation.LOAD), (0, 1)),
    ],
)
def test_a_segment_is_long_enough_to_count_and_too_short_for_the_timer(
    timing: Timing, lengths: tuple[int, int]
) -> None:
    assert measure.plan_lengths(timing) == lengths


@pytest.mark.parametrize(("size", "stride"), [(1, 4096), (4096, 4096), (4097, 8192)])
def test_fresh_buffers_share_no_page(size: int, stride: int) -> None:
    timing = Timing(operation=Operation.PREAD, size_bytes=size, buffers=BufferKind.FRESH)
    assert measure.plan_stride(timing) == stride


def test_a_fresh_buffer_was_never_touched_and_a_reused_one_has_all_its_pages() -> None:
    fresh, reused = Buffers(8192, 8192), Buffers(8192, 0)
    fresh.prepare(3)
    reused.prepare(3)
    before = measure.read_minor_faults()
    assert ctypes.string_at(reused.address, 8192) == bytes([measure.TOUCHED]) * 8192
    after_reused = measure.read_minor_faults()
    assert ctypes.string_at(fresh.address, 3 * 8192) == bytes(3 * 8192)
    # Python's own memory may fault as well, but not six times.
    assert after_reused - before < 6 <= measure.read_minor_faults() - after_reused


def test_fresh_memory_is_one_mapping_that_nothing_comes_near() -> None:
    buffers = Buffers(4096, 4096)
    buffers.prepare(600)
    assert buffers.address == measure.reserve()
    assert buffers.address % (512 * measure.PAGE) == 0, "it begins with a table of pages"
    found = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines()]
    end = buffers.address + measure.FRESH_BYTES
    at = found.index(f"{buffers.address:x}-{end:x}")
    for number in range(measure.NEIGHBOURS):
        begin = end + number * measure.PAGE
        assert found[at + 1 + number] == f"{begin:x}-{begin + measure.PAGE:x}"


def test_more_fresh_memory_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        Buffers(4096, 4096).prepare(measure.FRESH_BYTES // 4096 + 1)


def test_a_file_in_memory_was_read_after_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    measure.prepare_file(path, 3)
    found = path.stat()
    assert found.st_atime_ns > max(found.st_mtime_ns, found.st_ctime_ns), "no read notes its time"


def test_reused_memory_stays_where_it_is_and_fresh_memory_is_new_each_time() -> None:
    fresh, reused = Buffers(4096, 4096), Buffers(4096, 0)
    for buffers in (fresh, reused):
        buffers.prepare(1)
        ctypes.memset(buffers.address, 1, 1)
    address = reused.address
    fresh.prepare(2)
    reused.prepare(2)
    assert ctypes.string_at(fresh.address, 1) == b"\0"
    assert reused.address == address
    assert ctypes.string_at(reused.address, 1) == b"\1"


class Diary:
    """Calls that write down when they are made."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def plan(self, name: str) -> Calls:
        return Calls(prepare=lambda _: None, make=lambda n: self.lines.append(f"{name} {n}"))


def test_contenders_take_turns_and_none_is_always_first() -> None:
    diary = Diary()
    contenders = {name: diary.plan(name) for name in ("c", "rust")}
    found = list(measure.take_turns(Timing(operation=Operation.LOAD), "c", contenders, 2))
    assert diary.lines == ["rust 1", "c 1", "c 1", "rust 1", "rust 1", "c 1"]
    assert [(turns.module, len(turns.latency_ns)) for turns in found] == [
        ("c", 2),
        ("rust", 2),
    ]


MAGIC = """\
#include <stdio.h>
#include "magic.c"
int main(void)
{
	char buffer[8];
	magic_counts();
	magic_symbols(buffer, 0);
	printf("%zd %zd", bare_pread(0, buffer, 8, 3), bare_pwrite(0, buffer, 0, 1));
	return 0;
}
"""


def test_a_magic_instruction_does_nothing_and_is_made_of_the_bytes_that_the_profiler_knows(
    tmp_path: Path,
) -> None:
    native_dir = templates.PACKAGE_DIR / "guest/native"
    source_path, program_path = tmp_path / "program.c", tmp_path / "program"
    source_path.write_text(MAGIC)

    def run(*argv: str) -> str:
        return process.run(Command(argv=argv, purpose="magic instructions", timeout_s=60))

    run(
        "gcc",
        "-O2",
        "-Wall",
        "-Werror",
        f"-I{native_dir}",
        "-o",
        str(program_path),
        str(source_path),
    )
    run("sh", "-c", f"head -c 9 /dev/zero > {tmp_path}/nine; {program_path} < {tmp_path}/nine")
    code = program_path.read_bytes()
    assert b"\x0f\x1f\x80cnts" in code
    assert b"\x0f\x1f\x80syms" in code


@pytest.mark.parametrize("name", ["pause", "profiler"])
def test_a_plugin_of_qemu_compiles_without_a_warning(name: str) -> None:
    source_path = templates.PACKAGE_DIR / f"guest/native/{name}.c"
    argv = ("gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(source_path))
    process.run(Command(argv=argv, purpose=name, timeout_s=60))


# It has a block of five instructions executed, as QEMU has it.
EMULATOR = """\
#include <stdio.h>
#include <string.h>
#include "pause.c"

struct qemu_plugin_insn {
	size_t size;
	uint8_t bytes[4];
	void (*executed)(unsigned int, void *);
};

struct qemu_plugin_tb {
	struct qemu_plugin_insn insns[5];
};

static struct qemu_plugin_tb block = { {
	{ 1, { 0x90 }, NULL },			/* nop */
	{ 2, { 0xf3, 0x90 }, NULL },		/* pause */
	{ 1, { 0xf3 }, NULL },
	{ 2, { 0xf3, 0xa4 }, NULL },		/* rep movsb */
	{ 4, { 0xf3, 0x0f, 0x1e, 0xfa }, NULL },	/* endbr64 */
} };
static unsigned int yields;

int sched_yield(void)
{
	return yields++;
}

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb)
{
	return sizeof(tb->insns) / sizeof(tb->insns[0]);
}

struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t number)
{
	return (struct qemu_plugin_insn *)&tb->insns[number];
}

size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *bytes, size_t size)
{
	size_t length = insn->size < size ? insn->size : size;

	memcpy(bytes, insn->bytes, length);
	return length;
}

void qemu_plugin_register_vcpu_insn_exec_cb(
	struct qemu_plugin_insn *insn, void (*callback)(unsigned int, void *),
	enum qemu_plugin_cb_flags flags, void *data)
{
	(void)data;
	insn->executed = flags == QEMU_PLUGIN_CB_NO_REGS ? callback : NULL;
}

void qemu_plugin_register_vcpu_tb_trans_cb(
	qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb *))
{
	callback(id, &block);
}

int main(void)
{
	if (qemu_plugin_install(1, NULL, 0, NULL))
		return 1;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(&block); i++) {
		unsigned int before = yields;

		if (block.insns[i].executed)
			block.insns[i].executed(0, NULL);
		printf("%u", yields - before);
	}
	return 0;
}
"""


def test_a_processor_that_pauses_and_no_other_gives_way(tmp_path: Path) -> None:
    native_dir = templates.PACKAGE_DIR / "guest/native"
    source_path, program_path = tmp_path / "emulator.c", tmp_path / "emulator"
    source_path.write_text(EMULATOR)
    build = ("gcc", "-Wall", "-Werror", f"-I{native_dir}", "-o", str(program_path))
    process.run(Command(argv=(*build, str(source_path)), purpose="emulator", timeout_s=60))
    run = Command(argv=(str(program_path),), purpose="emulator", timeout_s=60)
    assert process.run(run) == "01000"


def test_a_loop_is_a_number_of_each_kind_for_each_pass() -> None:
    assert measure.parse_loop("900 128 200 0\n300 0 210 1\n") == {
        "read_ns": (900, 300),
        "read_faults": (128, 0),
        "write_ns": (200, 210),
        "write_faults": (0, 1),
    }


class Shelf:
    """A device that notes which part of it each thread moves, or refuses to move anything."""

    def __init__(self, errno: int = 0) -> None:
        self.errno = errno
        self.offsets: set[int] = set()

    def repeat(self, operation: str, calls: int, **values: int) -> None:
        assert (operation, calls, values["size"]) == ("pread", 3, 64)
        if self.errno:
            raise OSError(self.errno, "refused")
        self.offsets.add(values["offset"])


@pytest.mark.parametrize(
    ("regions", "offsets"), [(Regions.DISJOINT, {0, 4096}), (Regions.ONE, {0})]
)
def test_threads_of_a_team_have_a_page_each_or_share_one(
    regions: Regions, offsets: set[int]
) -> None:
    timing = Timing(operation=Operation.PREAD, size_bytes=64, threads=2, regions=regions)
    shelf = Shelf()
    with ThreadPoolExecutor(2) as pool:
        team = measure.Team(timing, shelf, pool)
        team.prepare(3)
        team.make(3)
    assert shelf.offsets == offsets


def test_a_call_that_fails_in_a_thread_fails_the_turn() -> None:
    timing = Timing(operation=Operation.PREAD, size_bytes=64, threads=2)
    with ThreadPoolExecutor(2) as pool:
        team = measure.Team(timing, Shelf(errno=5), pool)
        team.prepare(3)
        with pytest.raises(OSError, match="refused"):
            team.make(3)


class Ruler:
    """A library that counts its magic instructions."""

    def __init__(self) -> None:
        self.executed = 0

    def magic_counts(self) -> None:
        self.executed += 1


def test_the_host_looks_for_a_segment_where_its_calls_were_made() -> None:
    ruler = Ruler()
    made: list[tuple[int, int]] = []
    calls = Calls(prepare=lambda _: None, make=lambda n: made.append((ruler.executed, n)))
    timing = Timing(operation=Operation.PREAD, size_bytes=65536)
    profiler = measure.Profiler(cast(ctypes.CDLL, ruler))
    profiler.count(timing, calls, 2)
    made.clear()
    first, faults = profiler.count(timing, calls, 2)
    counted = Counted(
        timing=timing,
        cell="c/c",
        load=1,
        section=1,
        first=first,
        lengths=measure.plan_lengths(timing),
        faults=faults,
    )
    # Numbers begin with 0, and the one that ends a segment is the next that is made.
    assert made[-4:] == list(zip(figures.find_ends(counted), (4, 8, 4, 8), strict=True))

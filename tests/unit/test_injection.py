# SPDX-License-Identifier: GPL-2.0-only
"""What failed on demand, and what of a module never did."""

import json
from pathlib import Path
from typing import Any

import pytest

from twinmod.base import documents, process
from twinmod.base.process import Command
from twinmod.cells import injection
from twinmod.cells.injection import Failure, InjectionReport, Site
from twinmod.guest.testing import failures
from twinmod.kernels import elf
from twinmod.kernels.elf import Symbol

SYMBOLS = {"mdriver_open": Symbol(section=".text", value=0x100)}
SITES = (
    Site(module="mdriver_c", section=".text", address=0x110, place="mdriver_c.c:7", name="open"),
    Site(module="mdriver_c", section=".text", address=0x190, place="mdriver_c.c:9", name="read"),
)


def render(path: str, nth: int, *stack: str, errno: int = 12, kind: str = "failslab") -> str:
    values: dict[str, Any] = {
        "path": path,
        "nth": nth,
        "kind": kind,
        "errno": errno,
        "stack": stack,
    }
    return json.dumps(values) + "\n"


KERNEL = "should_failslab+0x1/0x2"
TEXT = (
    render("open", 1, KERNEL, "mdriver_open+0x10/0x90 [mdriver_c]", "do_open+0x3/0x4")
    + render("open", 2, KERNEL, "do_open+0x3/0x4", errno=0)
    + render("open", 3, "should_fail_usercopy+0x1/0x2", errno=14, kind="fail_usercopy")
)


def read(text: str) -> tuple[Failure, ...]:
    return injection.parse_failures(text, "mdriver_c")


def plan(text: str) -> InjectionReport:
    return injection.plan_report(read(text), SITES, {"mdriver_c": SYMBOLS})


@pytest.mark.parametrize(
    "name",
    [
        "__kvmalloc_node_noprof",
        "alloc_pages_noprof",
        "__kmalloc_cache_noprof",
        "kmemdup_noprof",
        "rust_helper_alloc_pages",
        "rust_helper_kvrealloc_node_align",
        "krealloc_node_align_noprof",
        "vmalloc_noprof",
        "kmem_cache_alloc_noprof",
        "kvcalloc",
    ],
)
def test_what_gives_memory_is_an_allocator(name: str) -> None:
    assert injection.ALLOCATORS.match(name)


@pytest.mark.parametrize("name", ["kfree", "__free_pages", "copy_page_to_iter", "vm_insert_page"])
def test_what_does_not_is_none(name: str) -> None:
    assert not injection.ALLOCATORS.match(name)


def test_a_path_says_how_many_points_failed_in_whose_code_and_how() -> None:
    assert documents.to_json(plan(TEXT))["paths"] == [
        {
            "module": "mdriver_c",
            "path": "open",
            "points": 3,
            "failures": 3,
            "own": 1,
            "kinds": {"failslab": 2, "fail_usercopy": 1},
            "errnos": {"0": 1, "12": 1, "14": 1},
        }
    ]


def test_a_place_is_hit_where_a_failures_stack_goes_through_it() -> None:
    assert [site.hit_by for site in plan(TEXT).sites] == ["open", ""]


def test_another_modules_frame_of_the_same_name_hits_nothing() -> None:
    text = render("open", 1, "mdriver_open+0x10/0x90 [other]")
    assert [site.hit_by for site in plan(text).sites] == ["", ""]


def test_a_line_that_was_cut_is_no_failure() -> None:
    assert len(read(TEXT + TEXT[:40])) == 3


def test_a_place_that_never_failed_is_missed() -> None:
    assert injection.find_missed(plan(TEXT)) == (("mdriver_c", "mdriver_c.c:9"),)


def test_the_report_is_a_line_for_each_path_and_each_place() -> None:
    assert injection.render_report(plan(TEXT)).splitlines() == [
        "made to fail in mdriver_c: open, 3 points, 3 times, 1 of them in its code and below",
        "mdriver_c asks for memory at mdriver_c.c:7, open; failed in: open",
        "mdriver_c asks for memory at mdriver_c.c:9, read; never failed",
    ]


EVENT = """\
# tracer: nop
#
  python3-60 [001] ..... 41.5: failed: (should_fail_alloc_page+0x61/0x90 <- should_fail_ex) \
failed=1 p0="__alloc_frozen_pages_noprof+0xda/0x330mdriver_write_iter+0xce/0x590 [mdriver_c]\
vfs_write+0x44f/0x6d0" p1="mdriver_write_iter+0xce/0x590 [mdriver_c]vfs_write+0x44f/0x6d0" \
p2="vfs_write+0x44f/0x6d0" p3=(fault)
"""


def test_a_failures_stack_is_read_from_texts_that_run_into_each_other() -> None:
    assert failures.parse_event(EVENT) == (
        "fail_page_alloc",
        (
            "should_fail_alloc_page+0x61/0x90",
            "__alloc_frozen_pages_noprof+0xda/0x330",
            "mdriver_write_iter+0xce/0x590 [mdriver_c]",
            "vfs_write+0x44f/0x6d0",
        ),
    )


def test_a_failure_that_nothing_tells_of_is_no_failure_of_ours() -> None:
    with pytest.raises(AssertionError, match="nothing tells of"):
        failures.parse_event("# tracer: nop\n")


SOURCE = """
void *kmalloc(int size);
void *left_behind(void) { return kmalloc(1); }
static __attribute__((noinline)) void *local(void) { return kmalloc(2); }
void *init_module(void) { return (char *)local() + 1; }
void *(*table)(void) = init_module;
"""


def test_a_place_that_no_code_comes_to_is_none(tmp_path: Path) -> None:
    source_path, object_path = tmp_path / "module.c", tmp_path / "module.o"
    source_path.write_text(SOURCE)
    argv = ("gcc", "-c", "-O1", "-fno-pic", "-o", str(object_path), str(source_path))
    process.run(Command(argv=argv, purpose="a module", timeout_s=60))
    data = object_path.read_bytes()
    unused = elf.parse_unused(data)
    functions = elf.parse_functions(data)
    names = {name for name, f in functions.items() for span in unused if f.value == span.begin}
    assert names == {"left_behind"}
    calls = [call for call in elf.parse_calls(data) if call.target == "kmalloc"]
    sites = injection.parse_sites(data, "module")
    assert (len(calls), len(sites)) == (2, 1)
    assert functions["local"].value <= sites[0].address
    # The data that `table` is made of is no code.
    assert max(f.value for f in functions.values()) < elf.count_text(data) < 200

# SPDX-License-Identifier: GPL-2.0-only
"""Why calls cost what they cost."""

import pytest

from twinmod.bench import explain

C = (
    ("vfs_read", 100.0),
    ("mdriver_read_iter [mdriver_c]", 75.0),
    ("_raw_spin_lock", 8.0),
    ("_raw_spin_unlock", 6.0),
    ("__check_object_size", 60.0),
)
RUST = (
    ("vfs_read", 100.0),
    ("<Mdriver>::read_iter [mdriver_rust]", 90.0),
    ("_raw_spin_lock", 8.0),
    ("_raw_spin_unlock", 6.0),
    ("rust_helper_spin_lock", 2.0),
)


@pytest.mark.parametrize(
    ("function", "part"),
    [
        ("mdriver_read_iter [mdriver_c]", "driver"),
        ("rust_helper_spin_lock", "driver"),
        ("<mdriver_rust::Mdriver as CharDevice>::read_iter [mdriver_rust]", "driver"),
        ("_raw_spin_unlock", "lock"),
        ("__check_object_size", "check"),
        ("check_stack_object", "check"),
        ("rep_movs_alternative", "copy"),
        ("copy_page_to_iter_nofault", "copy"),
        ("memcpy_orig", "copy"),
        ("entry_SYSCALL_64_after_hwframe", "entry"),
        ("do_syscall_64", "entry"),
        ("vfs_read", "file system"),
        ("aa_file_perm", "file system"),
    ],
)
def test_a_function_belongs_to_a_part_of_the_call(function: str, part: str) -> None:
    assert explain.find_part(function) == part


def test_the_parts_add_up_to_the_call() -> None:
    parts = explain.plan_parts(C, 96.0)
    assert sum(parts.values()) == sum(count for _, count in C) + 96.0
    assert (parts["driver"], parts["check"], parts["user space"]) == (75.0, 60.0, 96.0)


def test_the_rows_add_up_to_the_difference_and_what_is_equal_has_none() -> None:
    rows = explain.plan_rows(C, RUST, 96.0, 90.0)
    total = sum(count for _, count in RUST) + 90.0 - sum(count for _, count in C) - 96.0
    assert sum(row.difference for row in rows) == total
    assert "vfs_read" not in {row.function for row in rows}
    assert rows[0].function == "<Mdriver>::read_iter [mdriver_rust]"


def test_instructions_that_a_function_gained_move_its_row_alone() -> None:
    before = {r.function: r.difference for r in explain.plan_rows(C, RUST, 0, 0)}
    slower = tuple(
        (name, count + 50 * (name == "mdriver_read_iter [mdriver_c]")) for name, count in C
    )
    after = {r.function: r.difference for r in explain.plan_rows(slower, RUST, 0, 0)}
    moved = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert moved == {"mdriver_read_iter [mdriver_c]": -50.0}


def test_what_grew_is_named_first() -> None:
    after = (*C[1:], ("vfs_read", 150.0), ("new_one", 7.0))
    assert explain.compare_functions(C, after) == (("vfs_read", 50.0), ("new_one", 7.0))

# SPDX-License-Identifier: GPL-2.0-only
"""A name that nothing has is answered with the names that are like it."""

import pytest

from twinmod.base import nearest

KNOWN = ("null_blk", "xen_blkback", "virtio_blk", "loop")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("null_blkk", "did you mean null_blk or xen_blkback?"),
        ("virt_blk", "did you mean virtio_blk?"),
        ("zzz", ""),
    ],
)
def test_a_hint_has_the_nearest_names_first(name: str, hint: str) -> None:
    assert nearest.plan_hint(name, KNOWN) == hint


def test_a_hint_has_few_names() -> None:
    assert nearest.plan_hint("a", ("a1", "a2", "a3", "a4", "a5")).count(" or ") == nearest.NEAR - 1


def test_capitals_make_no_difference_to_the_nearest_name() -> None:
    assert nearest.find_nearest("LOOP", KNOWN) == "loop"
    assert nearest.plan_fact("loup", KNOWN, "modules") == ("nearest", "loop")
    assert nearest.plan_fact("zzz", KNOWN[:2], "modules") == ("modules", "null_blk, xen_blkback")

# SPDX-License-Identifier: GPL-2.0-only
"""What sequences of steps hypothesis makes: everything near a border more often than chance."""

import os
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from contract import (
    FIGETBSZ,
    FIOASYNC,
    FIOCLEX,
    FIONBIO,
    FIONCLEX,
    IOC_ADD,
    IOC_SIZE,
    PAGE,
    SIZE,
)
from differential.model import OFFSET_MAX, Model
from differential.steps import CLIFF, FILES, MAPPINGS, PIPE, SEEDS, Answer, Step
from twinmod.guest.testing.memory import BAD_ADDRESSES

# Devices that a run is made with: one page, a few with borders everywhere, and the default.
SIZES = (PAGE, 5 * PAGE, SIZE)

# Names of all steps, for whoever counts that none was left out.
NAMES = (
    *("open", "duplicate", "read", "write", "pread", "pwrite", "readv", "writev", "preadv"),
    *("pwritev", "seek", "size", "clear", "add", "add_unanswered", "command", "command_bad"),
    *("sync", "truncate", "allocate"),
    *("pread_bad", "pwrite_bad", "read_cliff", "write_cliff", "send_out", "send_in", "copy"),
    *("splice_out", "splice_in", "map", "unmap", "load", "store", "read_into_mapping"),
    "write_from_mapping",
)

# A sequence is so many parts, of which each is short in most cases: hypothesis removes whole parts
# before it looks at single steps.
PARTS = 5
PART_STEPS = 12

# As in test_ioctl.py; none of them is a command of the device, and some are the kernel's own.
UNKNOWN = (0, 0xDC00, 0xDC02, 0xDCFF, 0x8004DC00, 0x4008DC00, 0x8008DC01, 0x5401)
KERNEL = (FIGETBSZ, FIONBIO, FIONCLEX, FIOCLEX, FIOASYNC)

# Within user space, where the driver meets them; what is not, the kernel refuses by itself.
USER_BAD = tuple(address for address in BAD_ADDRESSES if address < 1 << 47)


def make_strategy(size: int) -> st.SearchStrategy[list[Step]]:
    """Return the strategy for sequences of steps on a device of some bytes."""
    part = st.lists(st.one_of(*_make_steps(size)), max_size=PART_STEPS)
    return st.tuples(*[part] * PARTS).map(lambda parts: [step for part in parts for step in part])


def expect(size: int, steps: list[Step]) -> tuple[list[Step], list[Answer]]:
    """Return the steps that mean something, in order, and what they must answer.

    The answers are followed by those about what is left at the end.
    """
    model = Model(size)
    kept, answers = [], []
    for step in steps:
        fitted = model.plan(step)
        if fitted is not None:
            kept.append(fitted)
            answers.append(model.apply(fitted))
    return kept, [*answers, *model.finish()]


def _step(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """Return steps of one kind; their arguments are in the order in which they are named here."""
    made = st.fixed_dictionaries(arguments)
    return made.map(lambda drawn: (name, {key: drawn[key] for key in arguments}))


def _near(size: int) -> st.SearchStrategy[int]:
    """Offsets: around each border of a page, around the end, beyond it, anywhere."""
    borders = st.builds(
        lambda page, distance: max(0, page * PAGE + distance),
        st.integers(0, size // PAGE),
        st.integers(-9, 9),
    )
    return st.one_of(borders, st.integers(0, size + PAGE), st.just(size))


def _lengths(size: int) -> st.SearchStrategy[int]:
    """Counts of bytes: few, around one page and two, more than there are."""
    around = st.builds(
        lambda pages, distance: max(0, pages * PAGE + distance),
        st.integers(0, 3),
        st.integers(-9, 9),
    )
    return st.one_of(st.integers(0, 40), around, st.integers(0, min(size, 16 * PAGE) + PAGE))


def _make_steps(size: int) -> tuple[st.SearchStrategy[Step], ...]:
    file = st.integers(0, FILES - 1)
    seed = st.integers(0, SEEDS - 1)
    lengths = _lengths(size)
    some = lengths.map(lambda length: max(1, length))
    near = _near(size)
    position = {"file": file, "offset": near}
    return (
        *_make_calls(size, file, seed, lengths),
        *_make_ioctls(size, file, near),
        *_make_disk_calls(file, near, some),
        *_make_bad_addresses(position, some),
        *_make_splices(file, seed, some, st.one_of(st.none(), near)),
        *_make_mappings(size, position, seed, some),
    )


def _make_calls(
    size: int,
    file: st.SearchStrategy[int],
    seed: st.SearchStrategy[int],
    lengths: st.SearchStrategy[int],
) -> tuple[st.SearchStrategy[Step], ...]:
    modes = st.sampled_from((os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_WRONLY))
    extras = st.sampled_from((0, 0, os.O_APPEND, os.O_NONBLOCK, os.O_TRUNC))
    far = st.builds(lambda back: OFFSET_MAX - back, st.integers(0, 2 * PAGE))
    near = st.one_of(_near(size), _near(size), far)
    offset = st.one_of(near, st.integers(-PAGE, -1))
    sizes = st.lists(lengths, min_size=1, max_size=4)
    nowait = st.sampled_from((0, 0, 0, os.RWF_NOWAIT))
    signed = st.one_of(near, near.map(lambda value: -value), st.integers(-9, 9))
    whence = st.sampled_from((0, 0, 1, 1, 2, 2, 3, 4, 5))
    return (
        _step("open", file=file, flags=st.builds(int.__or__, modes, extras)),
        _step("duplicate", file=file, source=file),
        _step("read", file=file, size=lengths),
        _step("write", file=file, seed=seed, size=lengths),
        _step("pread", file=file, size=lengths, offset=offset),
        _step("pwrite", file=file, seed=seed, size=lengths, offset=offset),
        _step("readv", file=file, sizes=sizes),
        _step("writev", file=file, seed=seed, sizes=sizes),
        _step("preadv", file=file, sizes=sizes, offset=near, flags=nowait),
        _step("pwritev", file=file, seed=seed, sizes=sizes, offset=near, flags=nowait),
        _step("seek", file=file, offset=signed, whence=whence),
    )


def _make_ioctls(
    size: int, file: st.SearchStrategy[int], near: st.SearchStrategy[int]
) -> tuple[st.SearchStrategy[Step], ...]:
    word = st.integers(0, size // 8 + 1).map(lambda number: number * 8)
    offset = st.one_of(word, word, near, st.integers(0, (1 << 64) - 1))
    delta = st.one_of(st.integers(0, 9), st.integers(0, (1 << 64) - 1))
    return (
        _step("size", file=file),
        _step("clear", file=file),
        _step("add", file=file, offset=offset, delta=delta),
        _step("add_unanswered", file=file, offset=offset, delta=delta),
        _step("command", file=file, number=st.sampled_from(UNKNOWN + KERNEL)),
        _step(
            "command_bad",
            file=file,
            number=st.sampled_from((IOC_SIZE, IOC_ADD)),
            address=st.sampled_from(BAD_ADDRESSES),
        ),
    )


def _make_disk_calls(
    file: st.SearchStrategy[int], near: st.SearchStrategy[int], some: st.SearchStrategy[int]
) -> tuple[st.SearchStrategy[Step], ...]:
    return (
        _step("sync", file=file, data_only=st.booleans()),
        _step("truncate", file=file, size=near),
        _step("allocate", file=file, offset=near, size=some),
    )


def _make_bad_addresses(
    position: Mapping[str, st.SearchStrategy[int]], some: st.SearchStrategy[int]
) -> tuple[st.SearchStrategy[Step], ...]:
    address = st.sampled_from(USER_BAD)
    cliff = {
        "file": position["file"],
        "good": st.one_of(st.integers(0, 9), st.integers(0, CLIFF)),
        "size": some.map(lambda size: min(size, CLIFF)),
        "offset": st.one_of(st.none(), position["offset"]),
        "readonly": st.booleans(),
    }
    return (
        _step("pread_bad", address=address, size=some, **position),
        _step("pwrite_bad", address=address, size=some, **position),
        _step("read_cliff", **cliff),
        _step("write_cliff", **cliff),
    )


def _make_splices(
    file: st.SearchStrategy[int],
    seed: st.SearchStrategy[int],
    some: st.SearchStrategy[int],
    offset: st.SearchStrategy[int | None],
) -> tuple[st.SearchStrategy[Step], ...]:
    piped = some.map(lambda size: min(size, PIPE))
    return (
        _step("send_out", file=file, size=some, offset=offset),
        _step("send_in", file=file, seed=seed, size=some),
        _step("copy", file=file, target=file, size=some, offset=offset),
        _step("splice_out", file=file, size=some, offset=offset),
        _step("splice_in", file=file, seed=seed, size=piped, offset=offset),
    )


def _make_mappings(
    size: int,
    position: Mapping[str, st.SearchStrategy[int]],
    seed: st.SearchStrategy[int],
    some: st.SearchStrategy[int],
) -> tuple[st.SearchStrategy[Step], ...]:
    mapping = st.integers(0, MAPPINGS - 1)
    pages = size // PAGE
    at = _near(size)
    rights = {"mapping": mapping, "file": position["file"], "private": st.booleans()}
    # Most of them fit; the last kind begins or ends beyond the end.
    inside = st.integers(0, pages - 1)
    fitting = _step("map", page=inside, size=st.integers(1, PAGE), writable=st.just(True), **rights)
    whole = _step("map", page=st.just(0), size=st.just(size), writable=st.booleans(), **rights)
    beyond = st.integers(0, pages + 1)
    any_map = _step("map", page=beyond, size=some, writable=st.booleans(), **rights)
    return (
        fitting,
        fitting,
        whole,
        whole,
        any_map,
        _step("unmap", mapping=mapping),
        _step("load", mapping=mapping, at=at, size=some),
        _step("store", mapping=mapping, at=at, seed=seed, size=some),
        _step("read_into_mapping", mapping=mapping, at=at, size=some, **position),
        _step("write_from_mapping", mapping=mapping, at=at, size=some, **position),
    )

# SPDX-License-Identifier: GPL-2.0-only
"""Why calls cost what they cost, from counts by function: computed, never written by hand. Pure."""

import re
from dataclasses import dataclass

#: The parts of a call, by the kernel's own names of its functions; the first that matches counts.
#: What an entry leads to and no other part claims is the way through the kernel to the driver.
PARTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (part, re.compile("|".join(patterns)))
    for part, patterns in (
        ("driver", (r".* \[.*\]", r"rust_helper_.*")),
        (
            "lock",
            (
                r"_raw_(?:spin|read|write)_.*",
                r"queued_spin_.*",
                r"(?:__)?mutex_.*",
                r"(?:down|up)_(?:read|write).*",
            ),
        ),
        (
            "check",
            (
                r"_*check_(?:object_size|heap_object|stack_object)",
                r"__virt_addr_valid",
                r"is_vmalloc_addr",
                r"find_vm_area",
                r"usercopy_.*",
            ),
        ),
        (
            "copy",
            (
                r"rep_(?:movs|stos)_alternative",
                r"(?:__|__pi_)?mem(?:cpy|set|move).*",
                r"_copy_(?:to|from)_(?:iter|user).*",
                r"copy_page_(?:to|from)_iter.*",
                r"copy_(?:to|from)_user_nofault",
                r"__(?:put|get)_user_.*",
                r"_*clear_pages?.*",
            ),
        ),
        (
            "entry",
            (
                r"entry_SYSCALL.*",
                r"entry_SYSRET.*",
                r"do_syscall_64",
                r"x64_sys_call",
                r"syscall_.*",
                r"__x64_sys_.*",
                r"prandom_u32_state",
                r"fpregs_.*",
                r"__x86_(?:indirect|return)_thunk.*",
            ),
        ),
    )
)

#: Where what no part claims belongs: permissions, the file, the VFS.
OTHER = "file system"
USER = "user space"

Functions = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a function takes of a call in C and in Rust."""

    function: str
    c: float
    rust: float

    @property
    def difference(self) -> float:
        """How much more Rust takes."""
        return self.rust - self.c


def find_part(function: str) -> str:
    """Return the part of a call that a function belongs to."""
    return next((part for part, pattern in PARTS if pattern.fullmatch(function)), OTHER)


def plan_parts(functions: Functions, user: float) -> dict[str, float]:
    """Return the instructions of a call by part; they add up to the call."""
    parts = dict.fromkeys((USER, "entry", OTHER, "driver", "lock", "check", "copy"), 0.0)
    parts[USER] = user
    for function, count in functions:
        parts[find_part(function)] += count
    return parts


def plan_rows(c: Functions, rust: Functions, c_user: float, rust_user: float) -> tuple[Row, ...]:
    """Return what the difference between the languages consists of, the largest share first.

    A function of a module stands for itself, and what both share stands side by side. The rows add
    up to the difference of the calls.

    Args:
        c: (function, instructions) of a call of the C module.
        rust: Of the Rust module.
        c_user: Instructions in user space.
        rust_user: The same for Rust.
    """
    left, right = dict(c) | {USER: c_user}, dict(rust) | {USER: rust_user}
    rows = (
        Row(function=function, c=left.get(function, 0.0), rust=right.get(function, 0.0))
        for function in dict.fromkeys((*left, *right))
    )
    differing = (row for row in rows if row.difference)
    return tuple(sorted(differing, key=lambda row: (-abs(row.difference), row.function)))


def compare_functions(before: Functions, after: Functions) -> tuple[tuple[str, float], ...]:
    """Return (function, how many more instructions it takes now), the most first."""
    old, new = dict(before), dict(after)
    grown = (
        (function, new.get(function, 0.0) - old.get(function, 0.0))
        for function in dict.fromkeys((*new, *old))
    )
    return tuple(sorted((pair for pair in grown if pair[1]), key=lambda pair: (-pair[1], pair[0])))

# SPDX-License-Identifier: GPL-2.0-only
"""What failed on demand in a run, and which allocations of the modules were among it. Pure.

Source: Documentation/fault-injection/fault-injection.rst, Linux 7.3.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from twinmod.base.documents import Part
from twinmod.guest import faults
from twinmod.guest.faults import Frame
from twinmod.kernels import elf

#: The kernel's functions that give memory, as a module's file names them.
ALLOCATORS = re.compile(
    r"^(?:rust_helper_)?_*(?:k|kv|v)(?:m|z|c|re)?alloc(?:_array|_node|_track|_cache|_align)*_?\w*$"
    r"|^(?:rust_helper_)?_*(?:alloc_pages|alloc_page|folio_alloc|kmem_cache_alloc|get_free_pages"
    r"|kmemdup|kstrdup|kasprintf|memdup_user)\w*$"
)

#: What a relocation of a call on x86-64 fills in; the call returns to what follows.
CALL_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place in a module that asks for memory."""

    module: str
    section: str
    # Where the call returns to, in bytes from the section's begin.
    address: int
    # FILE:LINE and the function there, once it is decoded.
    place: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One point of a path that was made to fail; guest/testing/failures.py writes them."""

    module: str
    path: str
    nth: int
    kind: str
    errno: int
    stack: tuple[Frame, ...]


class PathEntry(Part, frozen=True, kw_only=True):
    """A path through a module: its points, how often one failed, in whose code, and how."""

    module: str
    path: str
    points: int
    failures: int
    # How many of them in the module's code, or below it.
    own: int
    # By what the kernel fails, how often it did.
    kinds: dict[str, int]
    # By errno, how often the path ended with it.
    errnos: dict[str, int]


class SiteEntry(Part, frozen=True, kw_only=True):
    """A place in a module that asks for memory."""

    module: str
    place: str
    function: str
    # SECTION+0xOFFSET
    address: str
    # The first path on which it failed, "" for none.
    hit_by: str


class InjectionReport(Part, frozen=True, kw_only=True):
    """What failed on demand."""

    paths: tuple[PathEntry, ...]
    sites: tuple[SiteEntry, ...]


def parse_failures(text: str, module: str) -> tuple[Failure, ...]:
    """Return the failures that a cell kept, one JSON object a line; a line that was cut is none."""
    found = []
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        frames = (faults.parse_frame(entry) for entry in values.pop("stack"))
        stack = tuple(frame for frame in frames if frame is not None)
        found.append(Failure(module=module, stack=stack, **values))
    return tuple(found)


def parse_sites(data: bytes, module: str) -> tuple[Site, ...]:
    """Return the places of a module's file that call one of ALLOCATORS, and can be come to."""
    unused = elf.parse_unused(data)
    return tuple(
        Site(module=module, section=call.section, address=call.offset + CALL_BYTES)
        for call in elf.parse_calls(data)
        if ALLOCATORS.match(call.target)
        and not any(s.section == call.section and s.begin <= call.offset < s.end for s in unused)
    )


def find_hits(
    failures: Iterable[Failure], symbols: Mapping[str, elf.Symbol]
) -> dict[tuple[str, int], str]:
    """Return the first path that failed below each place of a module: (section, address).

    Args:
        failures: Of one module.
        symbols: Its functions.
    """
    hits: dict[tuple[str, int], str] = {}
    for failure in failures:
        for frame in failure.stack:
            symbol = symbols.get(frame.function) if frame.module == failure.module else None
            if symbol is not None:
                hits.setdefault((symbol.section, symbol.value + frame.offset), failure.path)
    return hits


def is_own(failure: Failure) -> bool:
    """Tell whether a module's code is in a failure's stack: else the kernel asked for itself."""
    return any(frame.module == failure.module for frame in failure.stack)


def plan_report(
    failures: tuple[Failure, ...],
    sites: tuple[Site, ...],
    symbols: Mapping[str, Mapping[str, elf.Symbol]],
) -> InjectionReport:
    """Return what failed on demand as reports have it.

    Args:
        failures: Of all modules.
        sites: Of all modules.
        symbols: By module, its functions.
    """
    paths = dict.fromkeys((failure.module, failure.path) for failure in failures)
    hits = {
        module: find_hits((f for f in failures if f.module == module), own)
        for module, own in symbols.items()
    }
    return InjectionReport(
        paths=tuple(
            plan_path(
                module, path, tuple(f for f in failures if (f.module, f.path) == (module, path))
            )
            for module, path in paths
        ),
        sites=tuple(
            SiteEntry(
                module=site.module,
                place=site.place,
                function=site.name,
                address=f"{site.section}+{site.address:#x}",
                hit_by=hits[site.module].get((site.section, site.address), ""),
            )
            for site in sites
        ),
    )


def plan_path(module: str, path: str, failures: tuple[Failure, ...]) -> PathEntry:
    """Return one path: its points, how often one failed, in whose code, of what kind, how."""
    return PathEntry(
        module=module,
        path=path,
        points=max(failure.nth for failure in failures),
        failures=len(failures),
        own=sum(is_own(failure) for failure in failures),
        kinds=dict(Counter(failure.kind for failure in failures if failure.kind)),
        errnos={
            str(number): count
            for number, count in sorted(Counter(f.errno for f in failures).items())
        },
    )


def find_missed(document: InjectionReport) -> tuple[tuple[str, str], ...]:
    """Return (module, place) of what asks for memory and never failed."""
    return tuple(
        (site.module, site.place or site.address) for site in document.sites if not site.hit_by
    )


def render_report(document: InjectionReport) -> str:
    """Return what failed on demand as text: each path, then each place that asks for memory."""
    lines = [
        f"made to fail in {p.module}: {p.path}, {p.points} points, {p.failures} times, "
        f"{p.own} of them in its code and below"
        for p in document.paths
    ]
    for site in document.sites:
        what = f"failed in: {site.hit_by}" if site.hit_by else "never failed"
        name = f", {site.function}" if site.function else ""
        place = site.place or site.address
        lines.append(f"{site.module} asks for memory at {place}{name}; {what}")
    return "\n".join(lines)

# SPDX-License-Identifier: GPL-2.0-only
"""The lines of a fault's stacks in a module's sources, by the module's own debug information.

Source: addr2line(1) and c++filt(1), binutils 2.44; scripts/decode_stacktrace.sh, Linux 7.3.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from twinmod.base import process, sandbox
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.builds.product import Product
from twinmod.cells import injection
from twinmod.cells.injection import Site
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import MissingToolError
from twinmod.guest.faults import Frame, KernelFault
from twinmod.kernels import elf

MODULE = sandbox.INSIDE / "module.ko"

TIMEOUT_S = 60.0

#: What a compiler appends to the name of a function that it split or made its own copy of.
_SUFFIX = re.compile(r"\.(?:cold|part|isra|constprop|llvm|localalias)\b.*$")

#: What tells crates of one name apart, as c++filt shows it.
_CRATE_HASH = re.compile(r"\[[0-9a-f]{8,16}\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """A function and a line that an address lies in."""

    function: str
    path: str
    line: str


def find_address(frame: Frame, symbols: Mapping[str, elf.Symbol]) -> tuple[str, int] | None:
    """Return (section, offset) of the instruction that a frame is about.

    Args:
        frame: Of the module. A section's own name stands for its begin.
        symbols: The module's functions by name.
    """
    # The address of a caller is the one it returns to: the call is before that.
    back = 0 if frame.exact else 1
    if frame.function.startswith("."):
        return frame.function, frame.offset - back
    symbol = symbols.get(frame.function)
    if symbol is None:
        return None
    return symbol.section, symbol.value + frame.offset - back


def parse_source_lines(output: str) -> tuple[tuple[SourceLine, ...], ...]:
    """Return what addr2line said of each address, the innermost inlined function first.

    Args:
        output: With ``-a -f -i``: an address, then two lines for each function.
    """
    found: list[list[SourceLine]] = []
    function = ""
    for line in output.splitlines():
        if line.startswith("0x") and not function:
            found.append([])
        elif not function:
            function = line
        else:
            path, _, number = line.partition(" (")[0].rpartition(":")
            if found:
                found[-1].append(SourceLine(function=function, path=path, line=number))
            function = ""
    return tuple(tuple(lines) for lines in found)


def choose_source_line(lines: tuple[SourceLine, ...], sources: frozenset[str]) -> SourceLine | None:
    """Return the innermost line in one of a module's own sources, or None."""
    return next((p for p in lines if Path(p.path).name in sources and p.line.isdigit()), None)


def plan_frame(frame: Frame, line: SourceLine | None) -> Frame:
    """Return a frame with its line, as a person would say it."""
    if line is None:
        return frame
    name = line.function if line.function != "??" else ""
    return replace(frame, name=name, place=f"{Path(line.path).name}:{line.line}")


# -- act --------------------------------------------------------------------------------------


def read_chains(
    product: Product, addresses: Iterable[tuple[str, int]], compilers: Chroot
) -> dict[tuple[str, int], tuple[SourceLine, ...]]:
    """Return what lies at addresses of a module, (section, offset): inlined functions first."""
    found: dict[tuple[str, int], tuple[SourceLine, ...]] = {}
    wanted = sorted(set(addresses))
    for section in dict.fromkeys(section for section, _ in wanted):
        here = [address for address in wanted if address[0] == section]
        argv = (
            "addr2line",
            "-a",
            "-f",
            "-i",
            "-C",
            "-j",
            section,
            "-e",
            str(MODULE),
            *(hex(offset) for _, offset in here),
        )
        command = sandbox.plan_command(
            compilers,
            argv,
            Enter(binds=(Bind(source_path=product.path, target_path=MODULE),)),
            purpose="a fault was not decoded",
            timeout_s=TIMEOUT_S,
        )
        found.update(zip(here, parse_source_lines(process.run(command)), strict=False))
    return found


def find_sources(product: Product) -> frozenset[str]:
    """Return the names of the files that a module was built from."""
    return frozenset(path.name for path in product.path.parent.iterdir())


def read_places(
    product: Product, frames: tuple[Frame, ...], compilers: Chroot
) -> dict[Frame, Frame]:
    """Return a module's frames with their lines, as far as its debug information has them."""
    symbols = elf.parse_functions(product.path.read_bytes())
    sources = find_sources(product)
    pairs = ((frame, find_address(frame, symbols)) for frame in frames)
    wanted = {frame: address for frame, address in pairs if address is not None}
    chains = read_chains(product, wanted.values(), compilers)
    return {
        frame: plan_frame(frame, choose_source_line(chains.get(address, ()), sources))
        for frame, address in wanted.items()
    }


def read_sites(product: Product, compilers: Chroot) -> tuple[Site, ...]:
    """Return the sites of a module, with their functions and lines.

    Rust gives memory back by the call that it asks for some with: those sites are left out.
    """
    sites = injection.parse_sites(product.path.read_bytes(), product.module)
    sources = find_sources(product)
    chains = read_chains(product, ((s.section, s.address - 1) for s in sites), compilers)
    found = []
    for site in sites:
        chain = chains.get((site.section, site.address - 1), ())
        if any(line.function.endswith("::free") for line in chain):
            continue
        line = choose_source_line(chain, sources)
        where = f"{Path(line.path).name}:{line.line}" if line else ""
        found.append(replace(site, place=where, name=line.function if line else ""))
    return tuple(found)


def read_names(mangled: Iterable[str], compilers: Chroot) -> dict[str, str]:
    """Return the names of Rust's functions as a person knows them, by the kernel's."""
    names = tuple(dict.fromkeys(mangled))
    if not names:
        return {}
    command = sandbox.plan_command(
        compilers,
        ("c++filt", *(_SUFFIX.sub("", name) for name in names)),
        purpose="names were not decoded",
        timeout_s=TIMEOUT_S,
    )
    return dict(zip(names, parse_names(process.run(command)), strict=True))


def parse_names(output: str) -> tuple[str, ...]:
    """Return the names that c++filt gave, without what tells crates of one name apart."""
    return tuple(_CRATE_HASH.sub("", output).splitlines())


def decode(
    results: tuple[CellResult, ...], products: tuple[Product, ...], compilers: Chroot
) -> tuple[CellResult, ...]:
    """Return results whose faults say where in the modules' sources they happened.

    A root without binutils leaves them as the kernel told them.
    """
    try:
        return tuple(_decode_cell(result, products, compilers) for result in results)
    except MissingToolError:
        return results


def _decode_cell(
    result: CellResult, products: tuple[Product, ...], compilers: Chroot
) -> CellResult:
    variant = result.cell.variant if isinstance(result.cell, Cell) else ""
    own = tuple(product for product in products if product.variant == variant)
    return replace(result, kernel_faults=decode_faults(result.kernel_faults, own, compilers))


def decode_faults(
    found: tuple[KernelFault, ...], products: tuple[Product, ...], compilers: Chroot
) -> tuple[KernelFault, ...]:
    """Return faults that say where in the sources of modules they happened.

    Raises:
        MissingToolError: The root has no binutils.
    """
    frames = {f for fault in found for s in fault.stacks for f in s.frames}
    known: dict[Frame, Frame] = {}
    for product in products:
        mine = tuple(frame for frame in frames if frame.module == product.module)
        if mine:
            known.update(read_places(product, mine, compilers))
    unnamed = {f.function for f in frames if f.function.startswith("_R") and f not in known}
    names = read_names(
        (*unnamed, *(f.function for f in known if f.function.startswith("_R"))), compilers
    )

    def name_frame(frame: Frame) -> Frame:
        placed = known.get(frame, frame)
        return placed if placed.name else replace(placed, name=names.get(frame.function, ""))

    return tuple(_map_frames(fault, name_frame) for fault in found)


def _map_frames(fault: KernelFault, change: Callable[[Frame], Frame]) -> KernelFault:
    stacks = tuple(
        replace(stack, frames=tuple(change(frame) for frame in stack.frames))
        for stack in fault.stacks
    )
    return replace(fault, stacks=stacks)

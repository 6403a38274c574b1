# SPDX-License-Identifier: GPL-2.0-only
"""A built kernel module."""

from dataclasses import dataclass
from pathlib import Path

from twinmod.project.model import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededModule:
    """A module that is loaded before another one, as a file that a VM can load."""

    # The kernel's name of it.
    name: str
    path: Path
    # What the kernel is given at its load: name=value.
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A built kernel module that was looked at and is what it claims to be."""

    module: str
    # What a person calls it.
    label: str
    # As its file shows.
    language: Language
    path: Path
    size_bytes: int
    sha256: str
    vermagic: str
    # The build that made it; a later run that finds it up to date repeats this figure.
    seconds: float
    command: str
    # True when this run found nothing to do.
    up_to_date: bool
    # Tells several builds of one module apart that a VM is given; "" where there is one.
    variant: str = ""
    # What of the kernel's own checks sees the module's code, and what is there and does not.
    watchers: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    # The modules that its file names as those it takes symbols from.
    depends: tuple[str, ...] = ()
    # Those, and what they depend on: loaded first, in this order.
    needed: tuple[NeededModule, ...] = ()
    # What the kernel is given at each load of it: name=value.
    parameters: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """What a VM knows the file by."""
        return f"{self.module}.{self.variant}.ko" if self.variant else f"{self.module}.ko"


def render_products(products: tuple[Product, ...]) -> str:
    """Return one line per product: path, bytes, seconds, sha256."""
    return "\n".join(
        f"{product.path}  {product.size_bytes} bytes  "
        f"{f'{product.seconds:.1f} s' if not product.up_to_date else 'up to date'}  "
        f"sha256:{product.sha256}"
        for product in products
    )

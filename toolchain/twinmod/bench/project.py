# SPDX-License-Identifier: GPL-2.0-only
"""What a project says of its own benchmark: goals, and a demonstration. It may say nothing."""

import math
import tomllib
from typing import Annotated

import msgspec
from msgspec import Meta

from twinmod.bench.figures import DEVICE_BYTES
from twinmod.errors import ConfigError
from twinmod.guest.protocol import LoopShape
from twinmod.project.config import Config


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A table of the file: an unknown key is an error."""


class Limit(_Table, frozen=True):
    """``[goals.NAME]``: how large a share may be, for calls of these sizes."""

    at_most: Annotated[float, Meta(gt=0)]
    from_bytes: Annotated[int, Meta(ge=1)] = 1
    # None: no end.
    to_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no share and no size can be."""
        if not math.isfinite(self.at_most):
            raise ValueError("`at-most` is not finite")
        if self.to_bytes is not None and self.to_bytes < self.from_bytes:
            raise ValueError(f"`to-bytes` is below `from-bytes`, {self.from_bytes}")

    def covers(self, size_bytes: int) -> bool:
        """Tell whether calls of a size are to keep to it."""
        return self.from_bytes <= size_bytes and (
            self.to_bytes is None or size_bytes <= self.to_bytes
        )


class Goals(_Table, frozen=True):
    """``[goals]``: what a project wants reached. None: nothing is wanted."""

    # What a call takes above one of one byte, in instructions for each 8 bytes.
    copy: Limit | None = None
    # Of a call, as a share of what a file in memory takes.
    tmpfs: Limit | None = None
    # Of a read, as a share of what /dev/zero takes.
    zero: Limit | None = None
    # Of Rust's call, as a share of C's.
    rust: Limit | None = None
    # Of a tester's call, as a share of what a loop in C with nothing else in it takes.
    tester: Limit | None = None
    # Of the time that one thread takes for a byte, what two on disjoint regions take.
    threads: Limit | None = None


class Demonstration(_Table, frozen=True):
    """``[demonstration]``: a loop of reads and writes, and what the page says of it."""

    # What the loop moves in a pass, and how often it goes round.
    size_bytes: Annotated[int, Meta(ge=1, le=DEVICE_BYTES)]
    passes: Annotated[int, Meta(ge=1, le=100)]
    # In the page's list of sections, and above its own.
    name: str
    title: str
    # Before the figures, and after them.
    cause: str = ""
    remark: str = ""

    @property
    def shape(self) -> LoopShape:
        """What the VM that counts is told."""
        return LoopShape(size_bytes=self.size_bytes, passes=self.passes)


class ProjectBench(_Table, frozen=True):
    """The file."""

    goals: Goals = Goals()
    demonstration: Demonstration | None = None


def parse_bench(text: str) -> ProjectBench:
    """Return what a project's file says.

    Raises:
        ValueError: It is not TOML, has an unknown key, lacks one, or a value cannot be.
        RecursionError: It is nested too deeply.
    """
    return msgspec.convert(tomllib.loads(text), ProjectBench)


def read_bench(config: Config) -> ProjectBench:
    """Return what a project says of its own benchmark; nothing, where it names no file.

    Raises:
        ConfigError: The file is not there, or is not valid.
    """
    if config.bench_path is None:
        return ProjectBench()
    facts = (("file", str(config.bench_path)),)
    try:
        return parse_bench(config.bench_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the file that `bench` of the driver names cannot be read: {error.strerror}",
            facts=facts,
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"the file that `bench` of the driver names is not valid: {error}", facts=facts
        ) from error

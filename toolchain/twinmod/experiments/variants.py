# SPDX-License-Identifier: GPL-2.0-only
"""Variants of a module as data: which are wanted, what compilers say, what is shown. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rich.table import Table

from twinmod import errors
from twinmod.base import text as base_text
from twinmod.base.documents import Document
from twinmod.errors import ConfigError, ExitCode


class Named(Protocol):
    """A variant as a person selects it."""

    @property
    def name(self) -> str:
        """What -k looks for a part of."""


class Judged(Protocol):
    """What became of a variant."""

    @property
    def passed(self) -> bool:
        """Whether that is what its entry says."""


class Risky(Protocol):
    """A variant that a VM may not survive."""

    @property
    def fatal(self) -> bool:
        """Whether that is so."""


Variant = TypeVar("Variant", bound=Named)
RiskyVariant = TypeVar("RiskyVariant", bound=Risky)

#: The last error of a compiler that came to the end of what it refuses.
LAST_ERROR = "aborting due to"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a person gets of an experiment."""

    document: Document
    table: Table
    # What is wrong, "" for nothing.
    troubles: str
    # What there is to say beside.
    notes: tuple[str, ...] = ()
    # The last line.
    totals: str
    exit_code: ExitCode


def select(
    variants: Iterable[Variant], keyword: str, *, none: str, hint: str
) -> tuple[Variant, ...]:
    """Return the variants whose name has a part.

    Args:
        variants: Those that are wanted otherwise.
        keyword: That part.
        none: What an error says is left.
        hint: What it says shows the names.

    Raises:
        ConfigError: None is left.
    """
    found = tuple(v for v in variants if keyword in v.name)
    if not found:
        raise ConfigError(f"-k {keyword} leaves {none}", hint=hint)
    return found


def plan_order(variants: tuple[RiskyVariant, ...]) -> tuple[RiskyVariant, ...]:
    """Return variants in the order in which they run: those that a VM may not survive come last."""
    return tuple(sorted(variants, key=lambda variant: variant.fatal))


def is_error(line: str) -> bool:
    """Tell whether a compiler's message of an error begins with a line."""
    return bool(re.match(r"\s*error(\[E\d+\])?: ", line))


def parse_compiler_errors(words: str) -> tuple[str, ...]:
    """Return the codes of a compiler's errors, each once; the text of those that have none."""
    found = re.findall(r"^\s*error(?:\[(E\d+)\])?: (.*)", words, re.MULTILINE)
    names = (code or text.strip() for code, text in found)
    return tuple(dict.fromkeys(name for name in names if not name.startswith(LAST_ERROR)))


def is_refusal(words: str) -> bool:
    """Tell whether a compiler refused a source, and said all of why."""
    return bool(parse_compiler_errors(words)) and LAST_ERROR in words


def compare_exit_codes(verdicts: Iterable[Judged], *others: ExitCode) -> ExitCode:
    """Return the exit code of a run: of its verdicts, and of what else can fail."""
    good = all(verdict.passed for verdict in verdicts)
    return errors.compare_exit_codes((ExitCode.PASSED if good else ExitCode.TESTS_FAILED, *others))


def plan_table(columns: Sequence[str], rows: Iterable[tuple[str, ...]], *, fold: bool) -> Table:
    """Return a table of verdicts.

    Args:
        columns: Their titles; "seconds" has numbers.
        rows: The verdicts.
        fold: Whether a cell that is too wide for a terminal has several lines.
    """
    table = Table(pad_edge=False, box=None)
    for title in columns:
        table.add_column(
            title,
            justify="right" if title == "seconds" else "left",
            overflow="fold" if fold else "ellipsis",
            no_wrap=not fold,
        )
    for row in rows:
        table.add_row(*row)
    return table


def render_troubles(troubles: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Return lines of what is wrong, each with the lines that prove it."""
    return "\n".join(
        line for first, rest in troubles for line in (first, *(f"    {one}" for one in rest))
    )


def render_list(rows: Sequence[tuple[str, ...]]) -> str:
    """Return a line for each variant."""
    return "\n".join(base_text.render_columns(rows, others="left"))

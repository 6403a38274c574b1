# SPDX-License-Identifier: GPL-2.0-only
"""Which cells a person wants, and which of them a kernel can have."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from twinmod.cells import model
from twinmod.cells.model import AbsentCell, Cell
from twinmod.project.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a caller narrowed a run to, or widened it by."""

    # Of modules, and names of testers; () is all.
    labels: tuple[str, ...] = ()
    testers: tuple[str, ...] = ()
    keyword: str = ""
    # Only the tests of these rules; () for those of all.
    rules: tuple[str, ...] = ()
    # Many more rounds of what repeats itself.
    long: bool = False
    # Whether its VMs can be replayed; nothing comes in once they run, so no differential.
    record: bool = False
    # Whether the first test that fails ends the run.
    exit_first: bool = False

    @property
    def narrowing(self) -> tuple[str, ...]:
        """Arguments of pytest that leave only some tests, () when all of them run."""
        rules = tuple(word for rule in self.rules for word in ("--rule", rule))
        return (*rules, "-k", self.keyword) if self.keyword else rules

    @property
    def pytest_args(self) -> tuple[str, ...]:
        """The arguments of pytest for it, beside the rules, which are the cells'."""
        keyword = ("-k", self.keyword) if self.keyword else ()
        return (*keyword, "--long") if self.long else keyword

    def plan_expected(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return the rules that every cell must have an outcome for, of those of the contract."""
        if self.keyword:
            return ()
        return self.rules or known

    def plan_cells(self, config: Config) -> tuple[Cell, ...]:
        """Return the cells that it leaves."""
        return tuple(
            replace(cell, rules=self.rules) for cell in model.plan_cells(config) if self._has(cell)
        )

    def _has(self, cell: Cell) -> bool:
        """Tell whether it leaves a cell."""
        labels, testers = self.labels, self.testers
        return (not labels or cell.label in labels) and (not testers or cell.tester in testers)

    def render(self, config: Config) -> str:
        """Return what it narrows a run to as text, "" when it leaves everything."""
        cells = self.plan_cells(config)
        words = []
        if len(cells) < len(model.plan_cells(config)):
            words.append("cells " + " ".join(cell.name for cell in cells))
        words += [f"--rule {rule}" for rule in self.rules]
        if self.keyword:
            words.append(f"-k {self.keyword!r}")
        if self.record:
            words.append("what can be recorded: no differential")
        if self.exit_first:
            words.append("-x: what ran until the first failure")
        return ", ".join(words)


def plan_presence(
    cells: tuple[Cell, ...], reasons: Mapping[str, str]
) -> tuple[tuple[Cell, ...], tuple[AbsentCell, ...]]:
    """Return the cells that a kernel can have, and those that it cannot.

    Args:
        cells: All of them.
        reasons: By label, why it can have no such module, "" when it can.
    """
    present = tuple(cell for cell in cells if not reasons[cell.label])
    absent = tuple(
        AbsentCell(cell=cell, reason=reasons[cell.label]) for cell in cells if reasons[cell.label]
    )
    return present, absent

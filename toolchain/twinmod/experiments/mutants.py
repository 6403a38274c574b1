# SPDX-License-Identifier: GPL-2.0-only
"""Mutants as data: what each replaces, which rules must catch it, whether they did. Pure."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec
from rich.table import Table

from twinmod.base import commands, nearest
from twinmod.base.documents import Document, Part
from twinmod.cells import outcomes
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import ConfigError
from twinmod.experiments import variants
from twinmod.guest.protocol import Outcome

#: Outcomes of a test that caught something.
CAUGHT = (Outcome.FAILED, *outcomes.BROKEN_OFF)


class Fate(StrEnum):
    """What a mutant can come to; only the first two are good."""

    CAUGHT = "caught"
    REFUSED = "refused"
    # By a rule that its entry does not name.
    ELSEWHERE = "elsewhere"
    SURVIVED = "survived"
    NO_BUILD = "no build"


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"new": "with"}):
    """A text, which occurs exactly once in a module's sources, and what is put in its place."""

    text: str
    new: str


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault that a person makes, in each module of a driver."""

    name: str
    # As the person who made it would tell it.
    why: str
    # One of them must catch it; () in a driver without a contract, where any test may.
    rules: tuple[str, ...] = ()
    # The kernel may not survive it.
    fatal: bool = False
    # By the module's label. In the file, each label is a key of the fault itself.
    edits: dict[str, tuple[Edit, ...]] = {}
    # By label, the compiler's error that does not let it happen.
    refused: dict[str, str] = {}
    # By label, why that module has no such fault.
    absent: dict[str, str] = {}


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"faults": "fault"}):
    """All mutants of a driver."""

    faults: tuple[Fault, ...]
    # By rule, why none needs to be caught by it.
    unmutated: dict[str, str] = {}


#: Keys of a fault in the file, beside the labels of modules.
KEYS = tuple(name for name in Fault.__struct_fields__ if name != "edits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One fault in one module."""

    fault: str
    # Of the module.
    label: str
    why: str
    rules: tuple[str, ...]
    fatal: bool
    edits: tuple[Edit, ...]
    # The compiler's error that stops it, "" when it builds.
    refused: str

    @property
    def name(self) -> str:
        """What a person calls it: the module's label, then the fault."""
        return f"{self.label}/{self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one mutant."""

    mutant: Mutant
    outcome: Fate
    # The rules that caught it, in the contract's order; the compiler's error.
    caught_by: tuple[str, ...] = ()
    # The tests that did.
    tests: tuple[str, ...] = ()
    # What there is to say beside: the compiler's words, a module that did not load.
    detail: str = ""
    # Of its build and of its cells.
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether it came to what its entry says."""
        return self.outcome in (Fate.CAUGHT, Fate.REFUSED)


def parse_page(text: str, labels: tuple[str, ...], rules: tuple[str, ...]) -> Page:
    """Return the faults that a driver's file of mutants describes.

    Args:
        text: The file's.
        labels: Those of the driver's modules.
        rules: Those of its contract.

    Raises:
        ConfigError: An unknown key, a missing one, a name twice, a module without a word, a rule
            that the contract lacks.
    """
    try:
        document = tomllib.loads(text)
        faults = [_gather_edits(fault, labels) for fault in document.get("fault", ())]
        page = msgspec.convert({**document, "fault": faults}, Page)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, TypeError, AttributeError) as error:
        raise ConfigError(f"the file of mutants is not valid: {error}") from error
    names = [fault.name for fault in page.faults]
    if len(names) != len(set(names)):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError(f"two faults of one name: {', '.join(twice)}")
    if not names:
        raise ConfigError("the file of mutants has no fault")
    for fault in page.faults:
        _require_whole(fault, labels, rules)
    for rule in page.unmutated:
        _require_rule("unmutated", rule, rules)
    return page


def _gather_edits(fault: Mapping[str, object], labels: tuple[str, ...]) -> dict[str, object]:
    """Return a fault of the file with its edits by label.

    Raises:
        ConfigError: It has a key that is neither one of KEYS nor a label.
    """
    unknown = [key for key in fault if key not in KEYS and key not in labels]
    if unknown:
        raise ConfigError(
            f"fault {fault.get('name', '')} has an unknown key `{unknown[0]}`",
            facts=(nearest.plan_fact(unknown[0], (*KEYS, *labels), "keys"),),
        )
    own = {key: value for key, value in fault.items() if key in KEYS}
    edits = {label: fault[label] for label in labels if label in fault and label not in KEYS}
    return {**own, "edits": edits}


def _require_whole(fault: Fault, labels: tuple[str, ...], rules: tuple[str, ...]) -> None:
    """Refuse a fault that says nothing about a module, or that no rule can catch.

    Raises:
        ConfigError: It is one.
    """
    for label in labels:
        if bool(fault.edits.get(label)) == (label in fault.absent):
            raise ConfigError(
                f"fault {fault.name} needs either an edit for {label} or a reason why "
                f"there is none, in absent.{label}"
            )
    for key, found in (("absent", fault.absent), ("refused", fault.refused)):
        for label in found:
            if label not in labels:
                raise ConfigError(
                    f"fault {fault.name}: {key}.{label} names no module of the driver",
                    facts=(nearest.plan_fact(label, labels, "modules"),),
                )
    if rules and not fault.rules:
        raise ConfigError(f"fault {fault.name} has no rules, of which one must catch it")
    for rule in fault.rules:
        _require_rule(f"fault {fault.name}", rule, rules)


def _require_rule(where: str, rule: str, rules: tuple[str, ...]) -> None:
    if rule not in rules:
        raise ConfigError(
            f"{where} names {rule}, which the driver's contract lacks",
            facts=(nearest.plan_fact(rule, rules, "rules"),) if rules else (),
            hint="" if rules else "without a contract, leave `rules` out: any test may catch it",
        )


def plan_mutants(page: Page, labels: tuple[str, ...]) -> tuple[Mutant, ...]:
    """Return every mutant, fault by fault.

    Args:
        page: The faults.
        labels: Those of the driver's modules.
    """
    return tuple(
        Mutant(
            fault=fault.name,
            label=label,
            why=fault.why,
            rules=fault.rules,
            fatal=fault.fatal,
            edits=fault.edits[label],
            refused=fault.refused.get(label, ""),
        )
        for fault in page.faults
        for label in labels
        if label not in fault.absent
    )


def select_mutants(
    mutants: tuple[Mutant, ...], keyword: str, labels: tuple[str, ...]
) -> tuple[Mutant, ...]:
    """Return the mutants of some modules whose name has a part.

    Raises:
        ConfigError: None is left.
    """
    wanted = (mutant for mutant in mutants if mutant.label in labels)
    hint = commands.render("mutate", "--list")
    return variants.select(wanted, keyword, none="no mutant", hint=hint)


def plan_sources(
    mutant: Mutant, sources: tuple[tuple[str, bytes], ...]
) -> tuple[tuple[str, bytes], ...]:
    """Return a module's files with a mutant's fault in them.

    Args:
        mutant: What is replaced.
        sources: (name, content) of the module's files, as they are.

    Raises:
        ConfigError: A text does not occur in exactly one place: the module has changed, and
            the mutant must be written anew.
    """
    files = dict(sources)
    for edit in mutant.edits:
        old, new = edit.text.encode(), edit.new.encode()
        counts = {name: content.count(old) for name, content in files.items()}
        if sum(counts.values()) != 1:
            raise ConfigError(
                f"mutant {mutant.name} no longer applies: its text occurs "
                f"{sum(counts.values())} times, not once",
                facts=(("text", edit.text.strip("\n")),),
                hint="write its entry anew",
            )
        name = next(name for name, count in counts.items() if count)
        files[name] = files[name].replace(old, new)
    return tuple(files.items())


def find_files(rules: Iterable[str], files: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Return the names of the files of tests in Python that name some rules.

    Args:
        rules: The rules that are wanted.
        files: (path in the folder of tests, text); collecting a file costs more than many of its
            tests.
    """
    quoted = tuple(f"{quote}{rule}{quote}" for rule in rules for quote in "\"'")
    return tuple(
        path
        for path, text in files
        if path.rpartition("/")[2].startswith("test_") and any(rule in text for rule in quoted)
    )


def plan_cell(
    mutant: Mutant, original: Cell, rules: tuple[str, ...], files: tuple[tuple[str, str], ...]
) -> Cell:
    """Return the cell that holds a mutant to the tests of some rules.

    Args:
        mutant: It.
        original: The cell of the module as it is.
        rules: Those that are wanted, () for all tests.
        files: See find_files.
    """
    return replace(original, variant=mutant.fault, rules=rules, files=find_files(rules, files))


def find_caught(result: CellResult, known: Iterable[str]) -> tuple[str, ...]:
    """Return the rules that a cell broke, in the contract's order."""
    return tuple(rule for rule in known if outcomes.compare_rule(result, rule) in CAUGHT)


def is_caught(mutant: Mutant, result: CellResult, known: tuple[str, ...]) -> bool:
    """Tell whether a cell failed by a rule that a mutant names, or at all where it names none."""
    if not mutant.rules:
        return result.outcome != Outcome.PASSED
    return not set(mutant.rules).isdisjoint(find_caught(result, known))


def judge(
    mutant: Mutant, cells: tuple[CellResult, ...], known: tuple[str, ...], build_s: float
) -> Verdict:
    """Return what became of a mutant that ran.

    Args:
        mutant: It.
        cells: That with the tests of its own rules; then, when they let it pass, that with all.
        known: The contract's rules.
        build_s: What its build took.
    """
    caught_by = find_caught(cells[-1], known)
    own = is_caught(mutant, cells[-1], known)
    tests = tuple(test.id for test in cells[-1].tests if test.outcome in CAUGHT)
    return Verdict(
        mutant=mutant,
        outcome=Fate.CAUGHT if own else Fate.ELSEWHERE if caught_by else Fate.SURVIVED,
        caught_by=caught_by,
        tests=tests,
        detail="; ".join(cells[-1].problems),
        seconds=build_s + sum(test.duration_s for cell in cells for test in cell.tests),
    )


def judge_refusal(mutant: Mutant, output: str, build_s: float) -> Verdict:
    """Return what became of a mutant that did not build.

    Args:
        mutant: It.
        output: The compiler's words.
        build_s: What the attempt took.
    """
    errors = variants.parse_compiler_errors(output)
    codes = tuple(name for name in errors if re.fullmatch(r"E\d+", name))
    expected = bool(mutant.refused) and mutant.refused in codes
    return Verdict(
        mutant=mutant,
        outcome=Fate.REFUSED if expected else Fate.NO_BUILD,
        caught_by=codes,
        detail="" if expected else output.strip(),
        seconds=build_s,
    )


# -- the report -------------------------------------------------------------------------------


def count_verdicts(verdicts: tuple[Verdict, ...]) -> dict[Fate, int]:
    """Return how many mutants came to what, every outcome named."""
    return {fate: sum(v.outcome == fate for v in verdicts) for fate in Fate}


def find_idle_rules(
    verdicts: tuple[Verdict, ...], known: tuple[str, ...], unmutated: dict[str, str]
) -> tuple[str, ...]:
    """Return the rules that caught nothing, although nothing excuses them."""
    busy = {rule for v in verdicts for rule in v.caught_by}
    return tuple(rule for rule in known if rule not in busy and rule not in unmutated)


class MutantEntry(Part, frozen=True, kw_only=True):
    """What came of a mutant; Mutant and Verdict say what the keys mean."""

    name: str
    # The label of the module.
    module: str
    why: str
    # The rules that are to catch it, or the compiler's code that refuses it.
    expected: tuple[str, ...]
    outcome: Fate
    caught_by: tuple[str, ...]
    tests: tuple[str, ...]
    detail: str
    seconds: float


class MutationReport(Document, frozen=True, kw_only=True, tag="twinmod.mutation/1"):
    """What a run of the mutants came to."""

    release: str
    mutants: tuple[MutantEntry, ...]
    # The rules that caught nothing.
    idle_rules: tuple[str, ...]
    # By outcome, how many.
    totals: dict[Fate, int]
    seconds: float


def plan_report(
    verdicts: tuple[Verdict, ...], release: str, idle: tuple[str, ...], seconds: float
) -> MutationReport:
    """Return the report.

    Args:
        verdicts: One for each mutant.
        release: The kernel that they ran on.
        idle: The rules that caught nothing.
        seconds: What all of it took.
    """
    return MutationReport(
        release=release,
        mutants=tuple(
            MutantEntry(
                name=v.mutant.fault,
                module=v.mutant.label,
                why=v.mutant.why,
                expected=(v.mutant.refused,) if v.mutant.refused else v.mutant.rules,
                outcome=v.outcome,
                caught_by=v.caught_by,
                tests=v.tests,
                detail=v.detail,
                seconds=round(v.seconds, 1),
            )
            for v in verdicts
        ),
        idle_rules=idle,
        totals=count_verdicts(verdicts),
        seconds=round(seconds, 1),
    )


def render_table(verdicts: tuple[Verdict, ...]) -> Table:
    """Return the table: a line for each mutant."""
    rows = (
        (
            v.mutant.fault,
            v.mutant.label,
            v.mutant.refused or " ".join(v.mutant.rules),
            " ".join(v.caught_by) or "-",
            f"{v.seconds:.1f}",
            "" if v.outcome == Fate.CAUGHT else v.outcome,
        )
        for v in verdicts
    )
    columns = ("mutant", "module", "expected", "caught by", "seconds", "")
    return variants.plan_table(columns, rows, fold=False)


def render_troubles(verdicts: tuple[Verdict, ...], idle: tuple[str, ...]) -> str:
    """Return what is wrong with each mutant that did not come to what its entry says."""
    return variants.render_troubles(
        (
            *(
                (
                    f"{v.mutant.name} {v.outcome}: {v.mutant.why}",
                    (*v.tests, *v.detail.splitlines()),
                )
                for v in verdicts
                if not v.passed
            ),
            *((f"{rule} caught none", ()) for rule in idle),
        )
    )


def render_list(mutants: tuple[Mutant, ...]) -> str:
    """Return a line for each mutant."""
    return variants.render_list(
        [(m.name, f"{m.refused or ' '.join(m.rules)}: {m.why}") for m in mutants]
    )


def render_totals(verdicts: tuple[Verdict, ...], seconds: float) -> str:
    """Return the last line of a run."""
    counts = count_verdicts(verdicts)
    parts = [f"{n} {fate}" for fate, n in counts.items() if n or fate == Fate.SURVIVED]
    return f"{len(verdicts)} mutants in {seconds:.0f} s: {', '.join(parts)}"

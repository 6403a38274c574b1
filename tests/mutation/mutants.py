# SPDX-License-Identifier: GPL-2.0-only
"""Mutants as data: what each replaces, which rules must catch it, whether they did. Pure."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from rich.table import Table

from twinmod.base.documents import Document, Part
from twinmod.cells import outcomes
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import ConfigError
from twinmod.experiments import variants
from twinmod.guest.protocol import Outcome
from twinmod.project.model import LANGUAGES, Language

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
    """A fault that a person makes, in each language; ``mutants.toml`` says what the keys are."""

    name: str
    why: str
    rules: tuple[str, ...]
    fatal: bool = False
    c: tuple[Edit, ...] = ()
    rust: tuple[Edit, ...] = ()
    refused: dict[str, str] = {}
    absent: dict[str, str] = {}


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"faults": "fault"}):
    """All of ``mutants.toml``."""

    unmutated: dict[str, str]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One fault in one module."""

    fault: str
    language: Language
    why: str
    rules: tuple[str, ...]
    fatal: bool
    edits: tuple[Edit, ...]
    # The compiler's error that stops it, "" when it builds.
    refused: str

    @property
    def name(self) -> str:
        """What a person calls it: the language, then the fault."""
        return f"{self.language}/{self.fault}"


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


def parse_page(text: str) -> Page:
    """Return the faults that ``mutants.toml`` describes.

    Raises:
        ConfigError: An unknown key, a missing one, a name twice, a language without a word.
    """
    try:
        page = msgspec.convert(tomllib.loads(text), Page)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"mutants.toml is not valid: {error}") from error
    names = [fault.name for fault in page.faults]
    if len(names) != len(set(names)):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError(f"mutants.toml has two faults of one name: {', '.join(twice)}")
    for fault in page.faults:
        for language, edits in ((Language.C, fault.c), (Language.RUST, fault.rust)):
            if bool(edits) == (language in fault.absent):
                raise ConfigError(
                    f"fault {fault.name} needs either an edit for {language} or a reason why "
                    f"there is none, in absent.{language}"
                )
    return page


def plan_mutants(page: Page) -> tuple[Mutant, ...]:
    """Return every mutant, fault by fault."""
    return tuple(
        Mutant(
            fault=fault.name,
            language=language,
            why=fault.why,
            rules=fault.rules,
            fatal=fault.fatal,
            edits=fault.c if language == Language.C else fault.rust,
            refused=fault.refused.get(language, ""),
        )
        for fault in page.faults
        for language in LANGUAGES
        if language not in fault.absent
    )


def select_mutants(
    mutants: tuple[Mutant, ...], keyword: str, languages: tuple[Language, ...]
) -> tuple[Mutant, ...]:
    """Return the mutants in some languages whose name has a part.

    Raises:
        ConfigError: None is left.
    """
    return variants.select(
        mutants, keyword, languages, none="no mutant", hint="--list shows their names"
    )


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
                hint="write its entry in tests/mutation/mutants.toml anew",
            )
        name = next(name for name, count in counts.items() if count)
        files[name] = files[name].replace(old, new)
    return tuple(files.items())


def find_files(rules: Iterable[str], files: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Return the names of the matrix's files that have a test of some rules.

    Args:
        rules: The rules that are wanted.
        files: (name, text) of the matrix; collecting a file costs more than many of its tests.
    """
    quoted = tuple(f'"{rule}"' for rule in rules)
    return tuple(
        name
        for name, text in files
        if name.startswith("test_") and any(rule in text for rule in quoted)
    )


def plan_cell(
    mutant: Mutant, module: str, rules: tuple[str, ...], files: tuple[tuple[str, str], ...]
) -> Cell:
    """Return the cell that holds a mutant to the tests of some rules. One tester is enough: C's.

    Args:
        mutant: It.
        module: The kernel's name of the module.
        rules: Those that are wanted, () for all.
        files: (name, text) of the matrix.
    """
    return Cell(
        module=module,
        label=mutant.language,
        tester="c",
        variant=mutant.fault,
        rules=rules,
        files=find_files(rules, files),
    )


def find_caught(result: CellResult, known: Iterable[str]) -> tuple[str, ...]:
    """Return the rules that a cell broke, in the contract's order."""
    return tuple(rule for rule in known if outcomes.compare_rule(result, rule) in CAUGHT)


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
    own = set(caught_by) & set(mutant.rules)
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
    # Its language.
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
                module=v.mutant.language,
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
            v.mutant.language,
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

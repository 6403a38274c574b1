# SPDX-License-Identifier: GPL-2.0-only
"""The zoo as data: bugs, what stops each attempt at one, and whether that is what it says. Pure."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec
from rich.table import Table

from twinmod.base import commands
from twinmod.base.documents import Document, Part
from twinmod.cells import outcomes
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import ConfigError, TwinmodError
from twinmod.experiments import variants
from twinmod.guest.protocol import Outcome
from twinmod.project.model import LANGUAGES, Language, ModuleSpec

#: The kernel of an entry that needs none of its own: the one that the configuration selects.
STOCK = "stock"

#: The kernel that looks for data races.
RACING = "kcsan"

#: Kinds of faults that the kernel tells of because it was built to look for them. Others are a
#: crash.
SANITIZERS = (
    "kasan",
    "kcsan",
    "kfence",
    "kmsan",
    "ubsan",
    "lockdep",
    "kmemleak",
    "atomic sleep",
    "slub",
)

#: Outcomes of a test in which it said no.
FAILED = (Outcome.FAILED,)

#: Lines of evidence that a report keeps.
EVIDENCE_LINES = 12


#: Why nothing stops an attempt, where that is no bad news: the same lines hold no bug in this
#: language. A run cannot tell, so the entry has to say why.
NO_BUG = "no bug"


class Stop(StrEnum):
    """What stops an attempt at a bug."""

    # The compiler refuses it.
    COMPILE = "compile"
    # A test of a rule fails.
    RULE = "rule"
    # A kernel that looks for such bugs reports it.
    SANITIZER = "sanitizer"
    # Any kernel reports it, or stops.
    CRASH = "crash"
    NOWHERE = "nowhere"
    # Of a verdict alone: no test ran, so nobody knows.
    NOT_RUN = "not run"


class Space(StrEnum):
    """Whether a bug is in a driver, or in a program that uses one."""

    KERNEL = "kernel"
    USER = "user"


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stops one attempt."""

    stopped_by: Stop
    # The compiler's code, the rule, the sanitizer, the kind of crash; of one that nothing stops,
    # NO_BUG or "".
    by: str = ""
    # Of one that nothing stops: why.
    because: str = ""


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of a ``zoo.toml``; docs/zoo.md says what the keys are."""

    kind: str
    why: str
    reference: str
    kernel: Literal["stock", "kasan", "kcsan"]
    c: Expectation
    rust: Expectation
    more: dict[str, Expectation] = {}
    space: Space = Space.KERNEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One way to write a bug."""

    entry: str
    # "c", "rust", or another attempt in Rust, as in "rust_unsafe".
    variant: str
    kernel: str
    space: Space
    expected: Expectation

    @property
    def language(self) -> Language:
        """What it is written in."""
        return Language.C if self.variant == Language.C else Language.RUST

    @property
    def name(self) -> str:
        """What a report calls it."""
        return f"{self.entry}/{self.variant}"

    @property
    def fatal(self) -> bool:
        """Whether a VM may not survive it."""
        return self.expected.stopped_by in (Stop.SANITIZER, Stop.CRASH)

    @property
    def stem(self) -> str:
        """The name of its module or program, and of its source without a suffix."""
        return f"zoo_{self.entry}_{self.variant}"

    @property
    def file_name(self) -> str:
        """The name of its source."""
        return f"{self.stem}.{'c' if self.language == Language.C else 'rs'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One bug."""

    name: str
    page: Page

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every way in which it is written: C, Rust, and more of Rust."""
        expected = {Language.C: self.page.c, Language.RUST: self.page.rust, **self.page.more}
        return tuple(
            Attempt(
                entry=self.name,
                variant=variant,
                kernel=self.page.kernel,
                space=self.page.space,
                expected=expectation,
            )
            for variant, expectation in expected.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What stopped one attempt."""

    attempt: Attempt
    stopped_by: Stop
    # As in Expectation.
    by: str = ""
    # What was said: by the compiler, the test, or the kernel.
    evidence: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it is what the entry expects."""
        expected = self.attempt.expected
        if self.stopped_by != expected.stopped_by:
            return False
        return expected.by in self.by.split("; ") or expected.by == self.by


# -- the data ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRun:
    """What the attempts of one kernel came to."""

    verdicts: tuple[Verdict, ...]
    # Attempts that the kernel cannot have, and why.
    absent: Mapping[Attempt, str]
    release: str
    # How many VMs it took.
    boots: int


def parse_entry(name: str, content: bytes) -> Entry:
    """Return the entry that a ``zoo.toml`` describes.

    Args:
        name: The folder's.
        content: The file's.

    Raises:
        ConfigError: An unknown key, a missing one, a wrong value, an expectation that is half.
    """
    try:
        page = msgspec.convert(tomllib.loads(content.decode()), Page)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"zoo/{name}/zoo.toml is not valid: {error}") from error
    entry = Entry(name=name, page=page)
    for attempt in entry.attempts:
        _check_expectation(name, attempt)
        if attempt.variant != Language.C and not re.fullmatch(r"rust(_[a-z]+)?", attempt.variant):
            raise ConfigError(
                f"zoo/{name}/zoo.toml is not valid: more.{attempt.variant} is not the name of an "
                "attempt in Rust, such as rust_unsafe"
            )
    return entry


def _check_expectation(name: str, attempt: Attempt) -> None:
    expected = attempt.expected
    quiet = expected.stopped_by == Stop.NOWHERE
    needed = "because" if quiet else "by"
    why = ""
    if expected.stopped_by == Stop.NOT_RUN:
        why = "that is not a stop"
    elif not getattr(expected, needed):
        why = f"lacks `{needed}`"
    elif quiet and expected.by not in ("", NO_BUG):
        why = f"has `by` other than {NO_BUG!r}"
    if why:
        raise ConfigError(
            f"zoo/{name}/zoo.toml is not valid: {attempt.variant} is stopped by "
            f"{expected.stopped_by.value!r} and {why}"
        )


def select_attempts(
    entries: tuple[Entry, ...], keyword: str, languages: tuple[Language, ...]
) -> tuple[Attempt, ...]:
    """Return the attempts in some languages at the bugs whose name has a part.

    Raises:
        ConfigError: None is left.
    """
    every = (attempt for entry in entries for attempt in entry.attempts)
    return variants.select(
        (attempt for attempt in every if attempt.language in languages),
        keyword,
        none="nothing of the zoo",
        hint=commands.render("zoo", "--list"),
    )


def plan_module(attempt: Attempt) -> ModuleSpec:
    """Return the module that an attempt is; Rust is built in the Linux tree, as the twin is."""
    in_tree = f"samples/rust/{attempt.stem}" if attempt.language == Language.RUST else ""
    return ModuleSpec(
        label=attempt.name,
        name=attempt.stem,
        sources=f"zoo/{attempt.entry}",
        in_tree=in_tree,
    )


def plan_cell(attempt: Attempt, module: str) -> Cell:
    """Return the cell that an attempt runs in.

    Args:
        attempt: It.
        module: The kernel's name of the module; one without the bug for a program in user space.
    """
    return Cell(
        module=module,
        label=attempt.entry,
        tester=attempt.variant,
        files=(f"test_{attempt.entry}.py",),
    )


# -- verdicts ---------------------------------------------------------------------------------


def judge(attempt: Attempt, result: CellResult) -> Verdict:
    """Return what stopped an attempt that was built and ran."""
    if result.kernel_faults:
        fault = result.kernel_faults[0]
        where = Stop.SANITIZER if fault.kind in SANITIZERS else Stop.CRASH
        return Verdict(
            attempt=attempt,
            stopped_by=where,
            by=fault.kind,
            evidence=fault.lines[:EVIDENCE_LINES],
        )
    if result.outcome in outcomes.BROKEN_OFF:
        return Verdict(
            attempt=attempt, stopped_by=Stop.CRASH, by=result.outcome, evidence=result.problems
        )
    return _judge_tests(attempt, result)


def _judge_tests(attempt: Attempt, result: CellResult) -> Verdict:
    """Return what stopped an attempt that its VM survived."""
    bad = tuple(test for test in result.tests if test.outcome in FAILED)
    if bad:
        rules = dict.fromkeys(rule for test in bad for rule in test.rules)
        return Verdict(
            attempt=attempt,
            stopped_by=Stop.RULE,
            by="; ".join(rules),
            evidence=tuple(test.message for test in bad),
        )
    if result.problems or not any(test.outcome == Outcome.PASSED for test in result.tests):
        evidence = result.problems or ("no test ran",)
        return Verdict(attempt=attempt, stopped_by=Stop.NOT_RUN, evidence=evidence)
    expected = attempt.expected
    by = expected.by if expected.stopped_by == Stop.NOWHERE else ""
    return Verdict(attempt=attempt, stopped_by=Stop.NOWHERE, by=by, evidence=(expected.because,))


def judge_refusal(attempt: Attempt, words: str) -> Verdict:
    """Return what stopped an attempt that did not compile.

    Args:
        attempt: It.
        words: The compiler's.
    """
    lines = words.splitlines()
    first = next((i for i, line in enumerate(lines) if variants.is_error(line)), 0)
    return Verdict(
        attempt=attempt,
        stopped_by=Stop.COMPILE,
        by="; ".join(variants.parse_compiler_errors(words)),
        evidence=tuple(lines[first : first + EVIDENCE_LINES]),
    )


# -- the report -------------------------------------------------------------------------------


class ExpectedEntry(Part, frozen=True, kw_only=True):
    """What was to stop an attempt; Expectation says what the keys mean."""

    stopped_by: Stop
    by: str


class VerdictEntry(Part, frozen=True, kw_only=True):
    """What stopped an attempt; Verdict says what the keys mean."""

    stopped_by: Stop
    by: str
    evidence: tuple[str, ...]
    expected: ExpectedEntry
    as_expected: bool


class BugEntry(Part, frozen=True, kw_only=True):
    """A bug; Page says what the keys mean. An attempt that did not run is null."""

    name: str
    kind: str
    why: str
    reference: str
    kernel: str
    c: VerdictEntry | None
    rust: VerdictEntry | None
    # By variant, the further attempts that ran.
    more: dict[str, VerdictEntry]

    @property
    def verdicts(self) -> tuple[VerdictEntry, ...]:
        """Those of all attempts that ran."""
        return tuple(v for v in (self.c, self.rust, *self.more.values()) if v is not None)


class AbsentAttempt(Part, frozen=True, kw_only=True):
    """An attempt that its kernel cannot have."""

    attempt: str
    reason: str


class ZooReport(Document, frozen=True, kw_only=True, tag="twinmod.zoo/1"):
    """What a run of the zoo came to."""

    # By name, its release.
    kernels: dict[str, str]
    entries: tuple[BugEntry, ...]
    # The names of attempts.
    mismatches: tuple[str, ...]
    absent: tuple[AbsentAttempt, ...]
    # By the name of a kernel, what its setup or its VMs failed with.
    failed: dict[str, str]
    seconds: float
    boots: int


def plan_verdict(verdict: Verdict) -> VerdictEntry:
    """Return what stopped an attempt as the report has it."""
    expected = verdict.attempt.expected
    return VerdictEntry(
        stopped_by=verdict.stopped_by,
        by=verdict.by,
        evidence=verdict.evidence,
        expected=ExpectedEntry(stopped_by=expected.stopped_by, by=expected.by),
        as_expected=verdict.passed,
    )


def plan_report(
    entries: tuple[Entry, ...],
    verdicts: tuple[Verdict, ...],
    runs: Mapping[str, KernelRun],
    failed: Mapping[str, TwinmodError],
    seconds: float,
) -> ZooReport:
    """Return the report.

    Args:
        entries: All of the zoo; those without a verdict are left out.
        verdicts: Of what was selected, in that order.
        runs: By the name of a kernel, what its attempts came to.
        failed: By the name of a kernel, what its setup or its VMs failed with.
        seconds: What all of it took.
    """
    found = {(v.attempt.entry, v.attempt.variant): plan_verdict(v) for v in verdicts}
    names = {v.attempt.entry for v in verdicts}
    return ZooReport(
        kernels={name: run.release for name, run in runs.items()},
        entries=tuple(
            BugEntry(
                name=entry.name,
                kind=entry.page.kind,
                why=entry.page.why,
                reference=entry.page.reference,
                kernel=entry.page.kernel,
                c=found.get((entry.name, Language.C)),
                rust=found.get((entry.name, Language.RUST)),
                more={v: found[entry.name, v] for v in entry.page.more if (entry.name, v) in found},
            )
            for entry in entries
            if entry.name in names
        ),
        mismatches=tuple(v.attempt.name for v in verdicts if not v.passed),
        absent=tuple(
            AbsentAttempt(attempt=attempt.name, reason=reason)
            for run in runs.values()
            for attempt, reason in run.absent.items()
        ),
        failed={name: error.message for name, error in failed.items()},
        seconds=round(seconds, 1),
        boots=sum(run.boots for run in runs.values()),
    )


def is_whole(document: ZooReport, attempts: int) -> bool:
    """Tell whether a report has so many attempts, and each ended as expected."""
    ran = sum(len(entry.verdicts) for entry in document.entries)
    return ran == attempts and not document.mismatches


def render_stop(stopped_by: Stop, by: str) -> str:
    """Return what stopped an attempt as the table shows it."""
    return f"{stopped_by} ({by})" if by else stopped_by


def render_table(verdicts: tuple[Verdict, ...]) -> Table:
    """Return the table: a line for each bug, and for each further attempt at it."""
    found = {(v.attempt.entry, v.attempt.variant): v for v in verdicts}
    rows: list[tuple[str, ...]] = []
    for name in dict.fromkeys(v.attempt.entry for v in verdicts):
        pair = tuple(v for key in LANGUAGES if (v := found.get((name, key))))
        cells = [_render_verdict(found.get((name, key))) for key in LANGUAGES]
        if pair:
            rows.append((name, *cells, _render_agreement(pair)))
        rows += (
            (f"  {v.attempt.variant}", "", _render_verdict(v), _render_agreement((v,)))
            for v in verdicts
            if v.attempt.entry == name and v.attempt.variant not in LANGUAGES
        )
    return variants.plan_table(("bug", "C", "Rust", "as expected"), rows, fold=True)


def _render_verdict(verdict: Verdict | None) -> str:
    return render_stop(verdict.stopped_by, verdict.by) if verdict else "-"


def _render_agreement(verdicts: tuple[Verdict, ...]) -> str:
    return "yes" if all(verdict.passed for verdict in verdicts) else "NO"


def render_troubles(verdicts: tuple[Verdict, ...]) -> str:
    """Return, for each attempt that was not stopped as it says, what was expected and seen."""
    return variants.render_troubles(
        (f"{v.attempt.name}: expected {_render_expected(v)}, seen {_render_verdict(v)}", v.evidence)
        for v in verdicts
        if not v.passed
    )


def _render_expected(verdict: Verdict) -> str:
    expected = verdict.attempt.expected
    return render_stop(expected.stopped_by, expected.by)


def render_list(attempts: tuple[Attempt, ...]) -> str:
    """Return a line for each attempt, with what it expects."""
    return variants.render_list(
        [(a.name, a.kernel, render_stop(a.expected.stopped_by, a.expected.by)) for a in attempts]
    )


def render_totals(verdicts: tuple[Verdict, ...], seconds: float) -> str:
    """Return the last line of a run."""
    good = sum(verdict.passed for verdict in verdicts)
    return f"{good} of {len(verdicts)} attempts stopped as expected, in {seconds:.0f} s"

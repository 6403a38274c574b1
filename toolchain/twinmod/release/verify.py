# SPDX-License-Identifier: GPL-2.0-only
"""What was found when a release was checked, as data and as text. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from twinmod.base import commands, documents
from twinmod.base.documents import Document, Part
from twinmod.errors import ConfigError
from twinmod.release import index as release_index
from twinmod.release import provenance
from twinmod.release.index import ReleaseIndex

#: Where a step ran.
HERE, ROOT, VM = "this host", "a throwaway root", "a VM"


class StepOutcome(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    FAILED = "failed"
    # This release, or the project, has nothing of it.
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was checked."""

    name: str
    # HERE, ROOT or VM.
    where: str
    outcome: StepOutcome
    seconds: float
    # What was seen, in words.
    detail: str


class StepEntry(Part, frozen=True, kw_only=True):
    """One thing that was checked; Step says what the keys mean."""

    name: str
    where: str
    outcome: str
    seconds: float
    detail: str


class VerifyReport(Document, frozen=True, kw_only=True, tag="twinmod.verify/1"):
    """What was found when a release was checked."""

    version: str
    commit: str
    passed: bool
    seconds: float
    steps: tuple[StepEntry, ...]


def parse_index(files: Mapping[str, bytes]) -> ReleaseIndex:
    """Return the index of a release.

    Raises:
        ConfigError: It has none, or one that cannot be read.
    """
    try:
        return documents.parse(files[release_index.INDEX], ReleaseIndex)
    except (KeyError, *documents.INVALID) as error:
        raise ConfigError(
            f"this folder has no release: {release_index.INDEX} is missing or not what "
            "it should be",
            facts=(("why", repr(error)),),
            hint=commands.render("release"),
        ) from error


def split_files(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the files that the sums are of, and those of the evidence, by their paths there."""
    head = f"{release_index.EVIDENCE}/"
    outside = (release_index.SUMS, f"{release_index.SUMS}.sig")
    own = {
        path: data
        for path, data in files.items()
        if path not in outside and not path.startswith(head)
    }
    evidence = {
        path.removeprefix(head): data
        for path, data in files.items()
        if path.startswith(head) and path != head + release_index.SUMS
    }
    return own, evidence


def find_wrong_sums(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return what of a release is not what its sums say, named."""
    own, evidence = split_files(files)
    seen = {**evidence, f"../{release_index.INDEX}": files.get(release_index.INDEX, b"")}
    wrong = []
    for sums_path, wanted in (
        (release_index.SUMS, own),
        (f"{release_index.EVIDENCE}/{release_index.SUMS}", seen),
    ):
        try:
            stated = release_index.parse_sums(files[sums_path].decode())
        except KeyError:
            wrong.append(f"{sums_path} is missing")
        except ValueError as error:
            wrong.append(f"{sums_path} cannot be read: {error}")
        else:
            wrong += [f"{path} {what}" for path, what in release_index.compare_sums(stated, wanted)]
    return tuple(wrong)


def find_wrong_documents(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return what the index and the provenance of a release say that is not so."""
    own, _ = split_files(files)
    index = parse_index(files)
    wrong = []
    listed = {entry.path: entry.sha256 for entry in index.artifacts}
    wrong += [
        f"{release_index.INDEX}: {path} {what}"
        for path, what in release_index.compare_sums(
            listed, {path: data for path, data in own.items() if path != release_index.INDEX}
        )
    ]
    try:
        statement = provenance.parse_statement(files[release_index.PROVENANCE])
    except KeyError:
        return (*wrong, f"{release_index.PROVENANCE} is missing")
    except documents.INVALID as error:
        return (*wrong, f"{release_index.PROVENANCE} cannot be read: {error}")
    subjects = {entry.name: entry.digest.sha256 for entry in statement.subject}
    others = (release_index.INDEX, release_index.PROVENANCE)
    wrong += [
        f"{release_index.PROVENANCE}: {path} {what}"
        for path, what in release_index.compare_sums(
            subjects, {path: data for path, data in own.items() if path not in others}
        )
    ]
    commit = statement.predicate.build_definition.external_parameters.commit
    if commit != index.commit:
        wrong.append(f"{release_index.PROVENANCE}: commit {commit}, not {index.commit}")
    return tuple(wrong)


def plan_report(index: ReleaseIndex, steps: Iterable[Step]) -> VerifyReport:
    """Return the report of a verification."""
    found = tuple(steps)
    return VerifyReport(
        version=index.version,
        commit=index.commit,
        passed=all(step.outcome != StepOutcome.FAILED for step in found),
        seconds=round(sum(step.seconds for step in found), 1),
        steps=tuple(
            StepEntry(
                name=step.name,
                where=step.where,
                outcome=step.outcome,
                seconds=step.seconds,
                detail=step.detail,
            )
            for step in found
        ),
    )


def render_report(document: VerifyReport) -> str:
    """Return the steps of a verification, a line each, and what they come to."""
    lines = [
        f"{step.outcome:<6} {step.seconds:7.1f} s  {step.where:<{len(ROOT)}}  "
        f"{step.name}: {step.detail}"
        for step in document.steps
    ]
    failed = sum(step.outcome == StepOutcome.FAILED for step in document.steps)
    absent = sum(step.outcome == StepOutcome.ABSENT for step in document.steps)
    passed = len(document.steps) - failed - absent
    last = f"{passed} passed, {failed} failed, {absent} absent, in {document.seconds:.0f} s"
    return "\n".join((*lines, "", last))

# SPDX-License-Identifier: GPL-2.0-only
"""How the artifacts of a release came to be: an in-toto statement with SLSA's predicate. Pure.

https://in-toto.io/Statement/v1 with https://slsa.dev/provenance/v1; what others add is passed over.
"""

from collections.abc import Iterable, Mapping

import msgspec

from twinmod.release import index
from twinmod.release.model import Release

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://twinmod.invalid/release/v1"


class _Object(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An object in the statement."""


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies the content of an artifact."""

    sha256: str


class Subject(_Object, frozen=True):
    """An artifact."""

    name: str
    digest: Digest


class Dependency(_Object, frozen=True):
    """What went in."""

    uri: str
    # By algorithm.
    digest: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class ExternalParameters(_Object, frozen=True):
    """What a person asked for."""

    commit: str
    # "" for none.
    tag: str
    version: str


class InternalParameters(
    _Object, frozen=True, rename={"source_date_epoch": "SOURCE_DATE_EPOCH", "commands": "commands"}
):
    """What a build makes of it."""

    source_date_epoch: int
    # As they can be pasted.
    commands: tuple[str, ...]


class BuildDefinition(_Object, frozen=True):
    """What was built, from what."""

    build_type: str
    external_parameters: ExternalParameters
    internal_parameters: InternalParameters
    resolved_dependencies: tuple[Dependency, ...]


class Builder(_Object, frozen=True):
    """Who builds."""

    id: str


class RunDetails(_Object, frozen=True):
    """How it was built."""

    builder: Builder


class Predicate(_Object, frozen=True):
    """What the statement says of its subject."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(
    _Object,
    frozen=True,
    rename={
        "type": "_type",
        "subject": "subject",
        "predicate_type": "predicateType",
        "predicate": "predicate",
    },
):
    """The document."""

    type: str
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: Predicate


def plan_statement(
    release: Release,
    tag: str,
    dependencies: Iterable[Dependency],
    commands: Iterable[str],
    files: Mapping[str, bytes],
) -> Statement:
    """Return how artifacts came to be.

    It names no time and no machine: who builds the same gets the same.

    Args:
        release: Which.
        tag: Of its commit, "" for none.
        dependencies: What went in beside the commit.
        commands: As they can be pasted.
        files: Content of every artifact, by path.
    """
    commit = Dependency(uri="git+file:.", digest={"gitCommit": release.commit})
    return Statement(
        type=STATEMENT_TYPE,
        subject=tuple(
            Subject(name=path, digest=Digest(sha256=index.read_digest(files[path])))
            for path in sorted(files)
        ),
        predicate_type=PREDICATE_TYPE,
        predicate=Predicate(
            build_definition=BuildDefinition(
                build_type=BUILD_TYPE,
                external_parameters=ExternalParameters(
                    commit=release.commit, tag=tag, version=release.version
                ),
                internal_parameters=InternalParameters(
                    source_date_epoch=release.epoch, commands=tuple(commands)
                ),
                resolved_dependencies=(commit, *dependencies),
            ),
            run_details=RunDetails(builder=Builder(id=f"{BUILD_TYPE}/nox-s-release")),
        ),
    )


def encode(statement: Statement) -> bytes:
    """Return the content of the statement's file."""
    return index.render_json(msgspec.to_builtins(statement))


def parse_statement(content: bytes) -> Statement:
    """Return the statement that a file holds.

    Raises:
        ValueError: It is not JSON, or lacks what a statement of ours has.
        RecursionError: It is nested too deeply.
    """
    return msgspec.json.decode(content, type=Statement)

# SPDX-License-Identifier: GPL-2.0-only
"""Write the JSON Schema of every document to docs/schemas: ``python tests/schemas.py``."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from twinmod.base import documents
from twinmod.base.documents import Document
from twinmod.bench.counter import CounterReport
from twinmod.bench.document import BenchReport
from twinmod.builds.build import BuildReport
from twinmod.differential.run import SoakReport
from twinmod.experiments.mutants import MutationReport
from twinmod.experiments.zoo import ZooReport
from twinmod.matrix.report import MatrixReport, TestReport, TestsReport
from twinmod.release.index import Modinfo, ReleaseIndex, SignedModule
from twinmod.release.verify import VerifyReport
from twinmod.ui.doctor import DoctorReport
from twinmod.vm.recording import RecordingDocument

CHECKOUT = Path(__file__).resolve().parents[1]

FOLDER = CHECKOUT / "docs/schemas"


sys.path.insert(0, str(CHECKOUT / "tests/layouts"))

from layouts import LayoutsReport  # noqa: E402


def list_documents() -> tuple[type[Document], ...]:
    """Return the class of every document."""
    return (
        BenchReport,
        BuildReport,
        CounterReport,
        DoctorReport,
        LayoutsReport,
        MatrixReport,
        Modinfo,
        MutationReport,
        RecordingDocument,
        ReleaseIndex,
        SignedModule,
        SoakReport,
        TestReport,
        TestsReport,
        VerifyReport,
        ZooReport,
    )


def find_keys(schema: dict[str, Any]) -> set[str]:
    """Return the keys of a document, each with those above it: "cells.outcome"."""

    def walk(node: object, above: tuple[str, ...], seen: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, list):
            for one in node:
                yield from walk(one, above, seen)
        if not isinstance(node, dict):
            return
        for word, value in node.items():
            if word == "$ref" and value not in seen:
                part = schema["$defs"][value.rpartition("/")[2]]
                yield from walk(part, above, (*seen, value))
            elif word == "properties":
                for key, one in value.items():
                    yield ".".join((*above, key))
                    yield from walk(one, (*above, key), seen)
            elif word != "$defs":
                yield from walk(value, above, seen)

    return set(walk(schema, (), ()))


def require_keys(folder: Path, kinds: Iterable[type[Document]]) -> None:
    """Refuse to write a schema that lacks a key which the one in a folder has.

    Who reads such a document by its tag would look for the key.
    """
    for kind in kinds:
        path = folder / documents.name_file(kind)
        if path.exists():
            old, new = (json.loads(s) for s in (path.read_text(), documents.render_schema(kind)))
            if lost := find_keys(old) - find_keys(new):
                raise SystemExit(
                    f"{documents.name_schema(kind)} loses {' '.join(sorted(lost))}: make the "
                    f"number in its tag one higher, and remove {path}"
                )


if __name__ == "__main__":
    require_keys(FOLDER, list_documents())
    documents.write_schemas(FOLDER, list_documents())

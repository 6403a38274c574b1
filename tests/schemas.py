# SPDX-License-Identifier: GPL-2.0-only
"""Write the JSON Schema of every document to docs/schemas: ``python tests/schemas.py``."""

import sys
from pathlib import Path

from twinmod.base import documents
from twinmod.base.documents import Document
from twinmod.bench.counter import CounterReport
from twinmod.bench.document import BenchReport
from twinmod.builds.build import BuildReport
from twinmod.differential.run import SoakReport
from twinmod.experiments.zoo import ZooReport
from twinmod.matrix.report import MatrixReport, TestReport, TestsReport
from twinmod.release.index import Modinfo, ReleaseIndex, SignedModule
from twinmod.release.verify import VerifyReport
from twinmod.ui.doctor import DoctorReport
from twinmod.vm.boot import RecordingDocument

CHECKOUT = Path(__file__).resolve().parents[1]

FOLDER = CHECKOUT / "docs/schemas"


sys.path[:0] = [str(CHECKOUT / "tests/layouts"), str(CHECKOUT / "tests/mutation")]

from layouts import LayoutsReport  # noqa: E402
from mutants import MutationReport  # noqa: E402


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


if __name__ == "__main__":
    documents.write_schemas(FOLDER, list_documents())

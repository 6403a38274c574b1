# SPDX-License-Identifier: GPL-2.0-only
"""Write the JSON Schema of every document to docs/schemas: ``python tests/schemas.py``."""

from pathlib import Path

from twinmod.base import documents
from twinmod.base.documents import Document
from twinmod.builds.build import BuildReport
from twinmod.differential.run import SoakReport
from twinmod.matrix.report import MatrixReport, TestReport, TestsReport
from twinmod.release.index import Modinfo, ReleaseIndex, SignedModule
from twinmod.release.verify import VerifyReport
from twinmod.ui.doctor import DoctorReport
from twinmod.vm.boot import RecordingDocument

FOLDER = Path(__file__).resolve().parents[1] / "docs/schemas"


def list_documents() -> tuple[type[Document], ...]:
    """Return the class of every document."""
    return (
        BuildReport,
        DoctorReport,
        MatrixReport,
        Modinfo,
        RecordingDocument,
        ReleaseIndex,
        SignedModule,
        SoakReport,
        TestReport,
        TestsReport,
        VerifyReport,
    )


if __name__ == "__main__":
    documents.write_schemas(FOLDER, list_documents())

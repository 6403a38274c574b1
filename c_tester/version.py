# SPDX-License-Identifier: GPL-2.0-only
"""What this tester's version is: the project's, whose file lies above, or here in an sdist."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILES = (Path("VERSION"), Path("../VERSION"))


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, str]:
    """Return the version, for scikit-build-core, which runs this in the tester's folder."""
    del settings, project
    path = next(path for path in FILES if path.is_file())
    return {"version": path.read_text().strip()}

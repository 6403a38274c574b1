# SPDX-License-Identifier: GPL-2.0-only
"""What a release is made from."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is released, and from what."""

    # After PEP 440: "0.1.0" at its tag, "0.1.0+g1a2b3c4d5e6f" elsewhere, "....dirty" of a tree with
    # changes.
    version: str
    # 40 hexadecimal digits.
    commit: str
    # Seconds since 1970, of the commit: the time of every file of every artifact.
    epoch: int
    # The tree of the commit, and nothing else.
    source_dir: Path

# SPDX-License-Identifier: GPL-2.0-only
"""Where a process's standard output and standard error go."""

import os
import sys
from pathlib import Path

#: Standard output and standard error.
OUTPUTS = (1, 2)


class Former:
    """Where both went when this was made."""

    def __init__(self) -> None:
        self._descriptors = tuple(os.dup(number) for number in OUTPUTS)

    def restore(self) -> None:
        """Let both go there again."""
        sys.stdout.flush()
        for number, descriptor in zip(OUTPUTS, self._descriptors, strict=True):
            os.dup2(descriptor, number)


def redirect(path: Path) -> None:
    """Let both go to a file."""
    with path.open("w") as log:
        for number in OUTPUTS:
            os.dup2(log.fileno(), number)

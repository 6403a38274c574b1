# SPDX-License-Identifier: GPL-2.0-only
"""Threads that count on one descriptor lose nothing."""

import subprocess
from pathlib import Path

import pytest

from twinmod.guest.testing import Module

THREADS = 4
INCREMENTS = 20_000


@pytest.mark.rule("R23")
def test_every_increment_counts(program: Path, module: Module) -> None:
    argv = (program, module.device_path, str(THREADS), str(INCREMENTS))
    done = subprocess.check_output(argv, text=True)
    assert int(done) == THREADS * INCREMENTS

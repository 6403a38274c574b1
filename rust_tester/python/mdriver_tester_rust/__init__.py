# SPDX-License-Identifier: GPL-2.0-only
"""Calls a memory device through its system calls: the Rust twin.

The C twin has the same interface; `_native.pyi` describes both.
"""

from mdriver_tester_rust._native import (
    IOC_ADD,
    IOC_CLEAR,
    IOC_SIZE,
    TESTER,
    Count,
    Device,
)

__all__ = ["IOC_ADD", "IOC_CLEAR", "IOC_SIZE", "TESTER", "Count", "Device"]

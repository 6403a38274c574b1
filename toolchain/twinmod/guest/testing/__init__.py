# SPDX-License-Identifier: GPL-2.0-only
"""What tests of a driver are written with. Standard library and pytest only."""

from twinmod.guest import log
from twinmod.guest.devices import Devices
from twinmod.guest.modules import Module
from twinmod.guest.testing import hardware
from twinmod.guest.testing.hardware import Hardware

__all__ = ["Devices", "Hardware", "Module", "hardware", "log"]

# SPDX-License-Identifier: GPL-2.0-only
"""Building, checking and signing a module."""

# SPDX-License-Identifier: GPL-2.0-only
"""Cells and their outcomes. No VM is started here."""

# SPDX-License-Identifier: GPL-2.0-only
"""Modules and a model that are held to the same steps."""

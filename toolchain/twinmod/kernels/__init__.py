# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that modules are built for: stock, built with other options, or a local tree."""

# SPDX-License-Identifier: GPL-2.0-only
"""The page and the summary."""

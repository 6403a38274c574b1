# SPDX-License-Identifier: GPL-2.0-only
"""Many variants of a module, and a verdict for each."""

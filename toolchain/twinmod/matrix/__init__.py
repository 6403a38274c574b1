# SPDX-License-Identifier: GPL-2.0-only
"""The verbs `test` and `matrix`."""

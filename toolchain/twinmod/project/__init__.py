# SPDX-License-Identifier: GPL-2.0-only
"""The configuration, finding a project, making one, and its rules."""

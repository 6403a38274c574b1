# SPDX-License-Identifier: GPL-2.0-only
"""The verbs of the command, a family a file: arguments in, text and an exit code out."""

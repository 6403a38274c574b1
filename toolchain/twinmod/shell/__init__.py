# SPDX-License-Identifier: GPL-2.0-only
"""A VM for a person: shell, debugger, replay."""

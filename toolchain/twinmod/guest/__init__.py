# SPDX-License-Identifier: GPL-2.0-only
"""What runs inside a VM, and nothing else does: the standard library, and pytest in ``testing``."""

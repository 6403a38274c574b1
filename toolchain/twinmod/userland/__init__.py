# SPDX-License-Identifier: GPL-2.0-only
"""What the root of a VM holds beside the chroot."""

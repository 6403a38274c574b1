# SPDX-License-Identifier: GPL-2.0-only
"""What runs inside a VM, and nothing else does. Standard library only; ``testing`` knows pytest."""

# SPDX-License-Identifier: GPL-2.0-only
"""What is shipped, and checking it."""

# SPDX-License-Identifier: GPL-2.0-only
"""The world: processes, files, cache, progress, network, sandbox. It knows nothing of kernels."""

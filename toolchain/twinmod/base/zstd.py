# SPDX-License-Identifier: GPL-2.0-only
"""zstd, by the chroot's own program: the same bytes everywhere."""

import tempfile
from pathlib import Path

from twinmod.base import process, sandbox
from twinmod.base.sandbox import Bind, Chroot, Enter

TIMEOUT_S = 300.0


def compress_zstd(root: Chroot, data: bytes) -> bytes:
    """Return data made smaller by the chroot's zstd, which is the same everywhere."""
    return _filter(root, ("zstd", "-19", "-T1", "-q", "-c"), data)


def decompress_zstd(root: Chroot, data: bytes) -> bytes:
    """Return what zstd made smaller."""
    return _filter(root, ("zstd", "-d", "-q", "-c"), data)


def _filter(root: Chroot, argv: tuple[str, ...], data: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="twinmod-") as name:
        folder, inside = Path(name), sandbox.INSIDE / "filter"
        (folder / "in").write_bytes(data)
        script = f"{' '.join(argv)} < {inside}/in > {inside}/out"
        command = sandbox.plan_command(
            root,
            ("sh", "-c", script),
            Enter(binds=(Bind(source_path=folder, target_path=inside, writable=True),)),
            purpose=f"{argv[0]} did not end well",
            timeout_s=TIMEOUT_S,
        )
        process.run(command)
        return (folder / "out").read_bytes()

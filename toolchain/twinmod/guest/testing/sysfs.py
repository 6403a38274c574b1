# SPDX-License-Identifier: GPL-2.0-only
"""Attributes in sysfs: those of a module's parameters, of a device, of any folder."""

from pathlib import Path

from twinmod.guest.modules import Module


def read(path: Path) -> str:
    """Return the value of an attribute, without the newline at its end.

    Raises:
        OSError: It is not there, may not be read, or the driver refused.
    """
    return path.read_text(errors="replace").removesuffix("\n")


def read_all(folder: Path) -> dict[str, str]:
    """Return the value of every attribute of a folder that can be read, by name."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        # Root may open what nobody may read; the kernel then says EIO.
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o444:
            try:
                found[path.name] = read(path)
            except OSError:
                continue
    return found


def read_parameters(module: Module) -> dict[str, str]:
    """Return the parameters of a loaded module that sysfs shows, by name."""
    return read_all(module.sysfs_path / "parameters")

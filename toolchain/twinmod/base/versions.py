# SPDX-License-Identifier: GPL-2.0-only
"""The version of a project: it stands in one file, and everything else is given it.

Source: PEP 440; Semantic Versioning 2.0.0, which cargo takes.
"""

from pathlib import Path

from packaging.version import InvalidVersion, Version

from twinmod.errors import ConfigError

#: The one file, at the top of a project: a line with the version.
FILE = "VERSION"

#: cargo takes three numbers.
NUMBERS_MAX = 3

#: What cargo has for PEP 440's names of what comes before a version.
_CARGO_WORDS = {"a": "alpha", "b": "beta", "rc": "rc"}


def parse_version(text: str) -> Version:
    """Return a version that wheels, crates, packages and kernel modules can all have.

    Raises:
        ConfigError: It is none, is not in its normal form, or has more than its numbers, a/b/rc
            and a local part.
    """
    try:
        found = Version(text)
        fits = str(found) == text and len(found.release) <= NUMBERS_MAX
    except InvalidVersion:
        fits = False
    if not fits or found.epoch or found.is_postrelease or found.is_devrelease:
        raise ConfigError(
            f"{text!r} is no version that a distribution can have",
            hint="a version is like 0.1.0, 0.2.0rc1 or 0.1.0+g1a2b3c4d5e6f",
        )
    return found


def find_version(project_dir: Path) -> str:
    """Return the version that a project states, "" for one without a file that does.

    Raises:
        ConfigError: The file states none.
    """
    return read_version(project_dir) if (project_dir / FILE).exists() else ""


def read_version(project_dir: Path) -> str:
    """Return the version that a project states.

    Raises:
        ConfigError: It states none.
    """
    path = project_dir / FILE
    try:
        text = path.read_bytes().decode(errors="replace").strip()
    except OSError as error:
        raise ConfigError(
            f"the project states no version: {error.strerror}",
            facts=(("file", str(path)),),
            hint=f"echo 0.1.0 > {FILE}",
        ) from error
    try:
        return str(parse_version(text))
    except ConfigError as error:
        raise ConfigError(error.message, facts=(("file", str(path)),), hint=error.hint) from error


def plan_base(version: str) -> str:
    """Return the public part of a version: "0.1.0" of "0.1.0+g1a2b3c4d5e6f".

    Raises:
        ConfigError: See parse_version.
    """
    return parse_version(version).public


def plan_next(version: str) -> str:
    """Return a version that comes after another one: "0.1.1" after "0.1.0".

    Raises:
        ConfigError: See parse_version.
    """
    found = parse_version(version)
    return f"{found.major}.{found.minor}.{found.micro + 1}"


def plan_cargo(version: str) -> str:
    """Return a version as cargo has it: "0.2.0-rc.1" for "0.2.0rc1".

    maturin gives a wheel the version of its crate, as PEP 440 has it again.

    Raises:
        ConfigError: See parse_version.
    """
    found = parse_version(version)
    numbers = f"{found.major}.{found.minor}.{found.micro}"
    before = f"-{_CARGO_WORDS[found.pre[0]]}.{found.pre[1]}" if found.pre else ""
    return numbers + before + (f"+{found.local}" if found.local else "")


def is_same(one: str, other: str) -> bool:
    """Tell whether two texts are one version, however they write it: "0.1" is "0.1.0"."""
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return False

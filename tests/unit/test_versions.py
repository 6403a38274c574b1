# SPDX-License-Identifier: GPL-2.0-only
"""One version, as each of those that must have it writes it."""

from pathlib import Path

import pytest
from packaging.version import Version

from twinmod.base import versions
from twinmod.errors import ConfigError

#: (a version, its public part, the next one, cargo's form of it)
VERSIONS = (
    ("0.1.0", "0.1.0", "0.1.1", "0.1.0"),
    ("0.1.0+g1a2b3c4d5e6f", "0.1.0", "0.1.1", "0.1.0+g1a2b3c4d5e6f"),
    ("0.1.9+g1a2b3c4d5e6f.dirty", "0.1.9", "0.1.10", "0.1.9+g1a2b3c4d5e6f.dirty"),
    ("1.2rc1", "1.2rc1", "1.2.1", "1.2.0-rc.1"),
    ("0.2.0a10", "0.2.0a10", "0.2.1", "0.2.0-alpha.10"),
    ("3", "3", "3.0.1", "3.0.0"),
)


@pytest.mark.parametrize(("version", "base", "later", "cargo"), VERSIONS)
def test_a_version_has_a_public_part_a_next_one_and_a_form_for_cargo(
    version: str, base: str, later: str, cargo: str
) -> None:
    assert versions.plan_base(version) == base
    assert versions.plan_next(version) == later
    assert Version(later) > Version(version)
    assert versions.plan_cargo(version) == cargo
    # As maturin reads what cargo has.
    assert Version(cargo) == Version(version)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "0.1.0-dev",
        "0.1.0+",
        "0.1.0+G1",
        "1/2",
        "1\n",
        "2024.01",
        "1!0.1",
        "0.1.0.dev1",
        "0.1.0.post1",
        "1.2.3.4",
        "0.1.0rc",
        "0.1.0-rc.1",
    ],
)
def test_what_not_all_of_them_can_have_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no version"):
        versions.parse_version(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.1.0", "0.1.0", True),
        ("0.1", "0.1.0", True),
        ("0.10.0", "0.1.0", False),
        ("0.1.0rc1", "0.1.0", False),
        ("", "0.1.0", False),
        ("driver 7", "0.1.0", False),
    ],
)
def test_versions_are_compared_and_not_their_texts(one: str, other: str, same: bool) -> None:
    assert versions.is_same(one, other) is same


def test_a_project_states_its_version_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("0.3.0\n")
    assert versions.read_version(tmp_path) == "0.3.0"


@pytest.mark.parametrize("content", [None, b"", b"0.3.0-1\n", b"\xff", b"0.3.0\n0.4.0\n"])
def test_a_project_without_a_version_is_told_the_file(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "VERSION"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        versions.read_version(tmp_path)
    assert ("file", str(path)) in caught.value.facts

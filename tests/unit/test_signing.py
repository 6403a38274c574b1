# SPDX-License-Identifier: GPL-2.0-only
"""Signatures by a person's keys, by the programs that make and check them."""

from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.base.sandbox import Chroot
from twinmod.builds import signing
from twinmod.builds.signing import Keys
from twinmod.errors import ConfigError

#: None is entered where only an SSH key is looked at.
NOWHERE = Chroot(name="none", key="", root_dir=Path("/nonexistent"), suite="trixie", mirror="")

pytestmark = pytest.mark.skipif(
    process.find_program("ssh-keygen") is None, reason="this host has no ssh-keygen"
)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    (tmp_path / "passphrase").write_text("open sesame\n")
    key = tmp_path / "key"
    argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-C", "", "-f", str(key))
    process.run(Command(argv=argv, purpose="key", timeout_s=60))
    return Keys(ssh_key=key, passphrase=tmp_path / "passphrase")


def allow(keys: Keys, name: str) -> Path:
    assert keys.ssh_key is not None
    path = keys.ssh_key.with_name("allowed")
    path.write_text(f"{name} {keys.ssh_key.with_suffix('.pub').read_text()}")
    return path


def test_a_signed_file_has_its_signer_and_a_changed_one_has_none(
    keys: Keys, tmp_path: Path
) -> None:
    path = tmp_path / "SHA256SUMS"
    path.write_text("sums\n")
    signature = signing.sign_file(keys, path)
    allowed = allow(keys, "maintainer@example.org")
    assert signing.find_signer(path, signature, allowed) == "maintainer@example.org"
    path.write_text("other sums\n")
    assert signing.find_signer(path, signature, allowed) == ""


def test_a_signature_of_somebody_else_is_nobodys(keys: Keys, tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("")
    signature = signing.sign_file(keys, path)
    argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other))
    process.run(Command(argv=argv, purpose="key", timeout_s=60))
    allowed = allow(Keys(ssh_key=other), "maintainer@example.org")
    assert signing.find_signer(path, signature, allowed) == ""


def test_the_right_passphrase_opens_a_key(keys: Keys) -> None:
    signing.require_keys(keys, NOWHERE)


@pytest.mark.parametrize("given", ["wrong\n", None])
def test_a_wrong_passphrase_or_none_is_refused_and_no_terminal_is_asked(
    keys: Keys, given: str | None
) -> None:
    if given is None:
        keys = Keys(ssh_key=keys.ssh_key)
    elif keys.passphrase is not None:
        keys.passphrase.write_text(given)
    with pytest.raises(ConfigError, match="does not open") as caught:
        signing.require_keys(keys, NOWHERE)
    assert ("key", str(keys.ssh_key)) in caught.value.facts


def test_a_key_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such key"):
        signing.require_files(Keys(ssh_key=tmp_path / "none"))


def test_a_key_for_modules_goes_with_its_certificate(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("")
    with pytest.raises(ConfigError, match="certificate"):
        signing.require_files(Keys(module_key=path))

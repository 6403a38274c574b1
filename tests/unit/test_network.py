# SPDX-License-Identifier: GPL-2.0-only
"""How the network is reached: the host's mirror, proxies and authorities."""

import pytest

from twinmod.base import network
from twinmod.errors import ConfigError, MissingToolError

DEB822 = """\
# Modernized from /etc/apt/sources.list
Types: deb deb-src
URIs: https://mirror.example/debian/
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

SECURITY = """\
Types: deb
URIs: http://security.example/debian-security/
Suites: trixie-security
Components: main
"""

ONE_LINE_SECURITY = "deb http://security.example/debian-security trixie-security main\n"


@pytest.mark.parametrize(
    ("sources", "mirror"),
    [
        (DEB822, "https://mirror.example/debian"),
        (
            "Types: deb\nURIs: http://a.example/debian http://b.example/debian\nComponents: main\n",
            "http://a.example/debian",
        ),
        ("deb http://mirror.example/debian trixie main\n", "http://mirror.example/debian"),
        ("deb http://mirror.example/debian/ trixie main\n", "http://mirror.example/debian"),
        (
            "deb [arch=amd64 signed-by=/k.gpg] http://x.example/debian trixie main\n",
            "http://x.example/debian",
        ),
        ("deb http://x.example/pub/debian trixie main\n", "http://x.example/pub/debian"),
        # What comes before a mirror and is none.
        (SECURITY + "\n" + DEB822, "https://mirror.example/debian"),
        (
            ONE_LINE_SECURITY + "deb http://mirror.example/debian trixie main\n",
            "http://mirror.example/debian",
        ),
        (
            (
                "# deb http://old.example/debian trixie main\n"
                "deb http://x.example/debian trixie main\n"
            ),
            "http://x.example/debian",
        ),
        # A vendor's path may end like a mirror's; its components are its own.
        (
            "deb https://vendor.example/linux/debian trixie stable\n" + "\n" + DEB822,
            "https://mirror.example/debian",
        ),
        (
            "Types: deb\nURIs: https://vendor.example/apt/debian/\nComponents: tools-8.0\n\n"
            + DEB822,
            "https://mirror.example/debian",
        ),
        (
            "Enabled: no\n" + DEB822.replace("mirror", "old") + "\n" + DEB822,
            "https://mirror.example/debian",
        ),
        ("deb-src http://src.example/debian trixie main\n", None),
        ("deb https://packages.microsoft.com/debian/12/prod bookworm main\n", None),
        ("deb https://apt.postgresql.org/pub/repos/apt trixie-pgdg main\n", None),
        ("deb cdrom:[Debian GNU/Linux 13.0.0 _Trixie_]/ trixie main\n", None),
        (SECURITY, None),
        ("", None),
    ],
    ids=str,
)
def test_the_first_debian_mirror_of_apts_sources_is_found(sources: str, mirror: str | None) -> None:
    assert network.parse_mirror(sources) == mirror


def test_the_configured_mirror_goes_first() -> None:
    assert network.find_mirror("http://configured.example/debian") == (
        "http://configured.example/debian"
    )


@pytest.mark.parametrize(
    "output",
    [
        "E: The repository 'http://x/debian nosuch Release' does not have a Release file.",
        "Err:1 http://x/debian nosuch Release\n  404  Not Found [IP: 10.0.0.1 80]",
    ],
)
def test_a_suite_that_the_mirror_lacks_is_the_users_to_mend(output: str) -> None:
    facts = (("command", "mmdebstrap"), ("output", output))
    found = network.plan_suite_error(MissingToolError("x", facts=facts), "nosuch", "upgrade")
    assert isinstance(found, ConfigError)
    assert found.message == "the mirror has no suite 'nosuch'"
    assert found.facts == facts


#: What apt says where the keys do not fit, with gpgv and with sqv.
OLD_KEYS = (
    (
        "W: GPG error: http://x/debian trixie InRelease: The following signatures couldn't be "
        "verified because the public key is not available: NO_PUBKEY 6ED0E7B82643E131\n"
        "E: The repository 'http://x/debian trixie InRelease' is not signed."
    ),
    "E: The following signatures were invalid: EXPKEYSIG 648ACFD622F3D138 Debian Archive Key",
    (
        "Err:1 http://x/debian sid InRelease\n  Sub-process /usr/bin/sqv returned an error code "
        "(1), error message is: Missing key 05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0, which is "
        "needed to verify signature."
    ),
    "error message is: The primary key is not live\n  because: Expired on 2026-02-01T00:00:00Z",
)


@pytest.mark.parametrize("output", OLD_KEYS)
def test_keys_older_than_the_suite_are_named_with_what_upgrades_them(output: str) -> None:
    facts = (("command", "mmdebstrap"), ("output", output))
    found = network.plan_suite_error(MissingToolError("x", facts=facts), "trixie", "upgrade")
    assert isinstance(found, MissingToolError)
    assert "debian-archive-keyring must be upgraded" in found.message
    assert (found.facts, found.hint) == (facts, "upgrade")


def test_a_mirror_without_a_signature_has_no_old_keys() -> None:
    error = MissingToolError("x", facts=(("output", "E: The repository 'x' is not signed."),))
    assert network.plan_suite_error(error, "trixie", "upgrade") is error


def test_any_other_failed_download_stays_what_it_is() -> None:
    error = MissingToolError("x", facts=(("output", "Could not resolve 'mirror.example'"),))
    assert network.plan_suite_error(error, "trixie", "upgrade") is error


def test_only_proxies_of_the_caller_are_carried_in() -> None:
    caller = {
        "https_proxy": "http://p",
        "ALL_PROXY": "socks5://q",
        "PIP_INDEX_URL": "https://i",
        "TOKEN": "x",
        "PATH": "/",
    }
    assert dict(network.plan_environment(caller)) == {
        "https_proxy": "http://p",
        "ALL_PROXY": "socks5://q",
    }


def test_everything_carried_in_is_there_and_read_only() -> None:
    for bind in network.find_binds():
        assert bind.source_path.exists()
        assert not bind.writable

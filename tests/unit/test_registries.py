# SPDX-License-Identifier: GPL-2.0-only
"""What of a person's pip and cargo goes into the chroot: index, trust, proxy, and nothing else."""

import configparser
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

from twinmod.base import registries
from twinmod.base.sandbox import Bind, Chroot
from twinmod.errors import ConfigError
from twinmod.release import wheels

NAMED = ("PIP_", "CARGO_", "XDG_", *registries.BUNDLES)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a person whose machine has no other settings."""
    for name in tuple(os.environ):
        if name.startswith(NAMED):
            monkeypatch.delenv(name)
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "xdg"))
    monkeypatch.setattr(registries, "SYSTEM_DIR", tmp_path / "etc")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# -- pip --------------------------------------------------------------------------------------


def read_pip(environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[Bind, ...]]:
    settings = registries.read_pip(environment)
    parser = configparser.RawConfigParser()
    parser.read_string(settings.text)
    assert parser.sections() == ["global"]
    return dict(parser["global"]), settings.binds


def test_of_pips_configuration_only_index_trust_and_proxy_are_carried_over(home: Path) -> None:
    write(
        home / ".config/pip/pip.conf",
        """\
[global]
require-virtualenv = true
index-url = https://a.example/simple
extra-index-url =
    https://b.example/simple
    https://c.example/%2Bsimple
trusted_host = a.example b.example
proxy = http://proxy.example:3128
timeout = 60
cert =
[install]
user = true
target = /elsewhere
[list]
index-url = https://of.another/command
""",
    )
    assert read_pip({}) == (
        {
            "index-url": "https://a.example/simple",
            "extra-index-url": "https://b.example/simple https://c.example/%2Bsimple",
            "trusted-host": "a.example b.example",
            "proxy": "http://proxy.example:3128",
        },
        (),
    )


#: Where pip looks, each before the ones above it.
SECTIONS = (
    ("xdg/pip/pip.conf", "global"),
    ("etc/pip.conf", "global"),
    ("home/.pip/pip.conf", "global"),
    ("home/.config/pip/pip.conf", "global"),
    ("prefix/pip.conf", "global"),
    ("named.conf", "global"),
    ("xdg/pip/pip.conf", "install"),
    ("prefix/pip.conf", "install"),
)


@pytest.mark.parametrize("count", range(1, len(SECTIONS) + 1))
def test_of_two_files_the_one_that_pip_prefers_goes_first(
    home: Path, tmp_path: Path, count: int
) -> None:
    texts: dict[str, str] = {}
    for number, (name, section) in enumerate(SECTIONS[:count]):
        texts[name] = f"{texts.get(name, '')}[{section}]\nindex-url = https://{number}.example\n"
    for name, text in texts.items():
        write(tmp_path / name, text)
    environment = {"PIP_CONFIG_FILE": str(tmp_path / "named.conf")} if count > 5 else {}
    assert read_pip(environment)[0] == {"index-url": f"https://{count - 1}.example"}
    environment["PIP_INDEX_URL"] = "https://environment.example"
    assert read_pip(environment)[0] == {"index-url": "https://environment.example"}
    environment["PIP_INDEX_URL"] = ""
    assert read_pip(environment)[0] == {"index-url": f"https://{count - 1}.example"}


def test_a_file_that_the_caller_names_stands_for_the_users(home: Path, tmp_path: Path) -> None:
    write(home / ".config/pip/pip.conf", "[global]\nproxy = http://user.example\n")
    write(tmp_path / "xdg/pip/pip.conf", "[global]\nindex-url = https://system.example\n")
    named = write(tmp_path / "named.conf", "[global]\ntrusted-host = named.example\n")
    assert read_pip({"PIP_CONFIG_FILE": str(named)})[0] == {
        "index-url": "https://system.example",
        "trusted-host": "named.example",
    }
    assert read_pip({"PIP_CONFIG_FILE": os.devnull})[0] == {}
    assert read_pip({"PIP_CONFIG_FILE": "/not/there"})[0]["proxy"] == "http://user.example"


def test_certificates_that_pip_names_are_bound(home: Path) -> None:
    for name in ("ca.pem", "own.pem"):
        write(home / name, "")
    write(home / ".config/pip/pip.conf", "[global]\ncert = ~/ca.pem\n")
    assert read_pip({"PIP_CLIENT_CERT": str(home / "own.pem")}) == (
        {"cert": "/twinmod/trust/pip-cert", "client-cert": "/twinmod/trust/pip-client-cert"},
        (
            Bind(source_path=home / "ca.pem", target_path=PurePosixPath("/twinmod/trust/pip-cert")),
            Bind(
                source_path=home / "own.pem",
                target_path=PurePosixPath("/twinmod/trust/pip-client-cert"),
            ),
        ),
    )


@pytest.mark.parametrize("name", registries.BUNDLES)
def test_what_other_programs_trust_is_trusted_too(home: Path, name: str) -> None:
    bundle = str(write(home / "ca.pem", ""))
    assert read_pip({name: bundle})[1][0].source_path == home / "ca.pem"
    assert read_pip({name: "/not/there"}) == ({}, ())
    other = str(write(home / "other.pem", ""))
    assert read_pip({name: bundle, "PIP_CERT": other})[1][0].source_path == home / "other.pem"


def test_a_certificate_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(ConfigError, match="pip's cert names a certificate") as caught:
        registries.read_pip({"PIP_CERT": "/not/there.pem"})
    assert caught.value.facts == (("file", "/not/there.pem"),)


@pytest.mark.parametrize("text", [b"index-url = x\n", b"[global\n", b"\xff\xfe", b"[a]\n[a]\n"])
def test_a_configuration_of_pip_that_is_none_is_named(home: Path, text: bytes) -> None:
    path = write(home / ".config/pip/pip.conf", "")
    path.write_bytes(text)
    with pytest.raises(ConfigError, match="pip's configuration") as caught:
        registries.read_pip({})
    assert caught.value.facts[0] == ("file", str(path))


# -- cargo ------------------------------------------------------------------------------------

LOCK = """\
version = 4
[[package]]
name = "libc"
version = "0.2.1"
source = "registry+https://github.com/rust-lang/crates.io-index"
[[package]]
name = "tester"
version = "0.1.0"
"""

MIRROR = """\
[source.crates-io]
replace-with = "mirror"
[source.mirror]
registry = "sparse+https://mirror.example/index/"
[source.unused]
directory = "/not/there"
[build]
rustc-wrapper = "sccache"
[net]
offline = true
[http]
proxy = "http://proxy.example:3128"
multiplexing = false
"""


@pytest.fixture
def project(home: Path) -> Path:
    path = home / "src/tester"
    path.mkdir(parents=True)
    return path


def write_sources(
    project: Path, environment: Mapping[str, str], home_dir: Path
) -> dict[str, object]:
    """Return the configuration of a CARGO_HOME that is made of a person's own."""
    home_dir.mkdir()
    settings = registries.read_cargo(project, environment)
    registries.write_cargo_sources(settings, LOCK, home_dir)
    path = home_dir / "config.toml"
    return tomllib.loads(path.read_text()) if path.is_file() else {}


def test_of_cargos_configuration_only_sources_are_carried_over(
    home: Path, project: Path, tmp_path: Path
) -> None:
    write(home / ".cargo/config.toml", MIRROR)
    assert write_sources(project, {}, tmp_path / "cargo") == {
        "source": {
            "crates-io": {"replace-with": "mirror"},
            "mirror": {"registry": "sparse+https://mirror.example/index/"},
        }
    }
    settings = registries.read_cargo(project, {})
    assert dict(registries.find_cargo_trust(settings)[0]) == {
        "CARGO_HTTP_PROXY": "http://proxy.example:3128",
        "CARGO_HTTP_CAINFO": "/etc/ssl/certs/ca-certificates.crt",
    }


@pytest.mark.parametrize(
    "name",
    [
        "home/.cargo/config",
        "home/.cargo/config.toml",
        "own/config",
        "own/config.toml",
        "home/src/.cargo/config.toml",
        "home/src/tester/.cargo/config",
    ],
)
def test_cargos_configuration_is_found_where_cargo_finds_it(
    name: str, project: Path, tmp_path: Path
) -> None:
    write(tmp_path / name, MIRROR)
    environment = {"CARGO_HOME": str(tmp_path / "own")} if name.startswith("own") else {}
    assert "mirror" in registries.read_cargo(project, environment).sources


def test_of_two_configurations_the_one_that_cargo_prefers_goes_first(
    home: Path, project: Path, tmp_path: Path
) -> None:
    def render(name: str) -> str:
        return MIRROR.replace("https://mirror", f"https://{name}")

    def ask() -> str:
        table = registries.read_cargo(project, {"CARGO_HOME": str(tmp_path / "own")})
        return table.sources["mirror"]["registry"].partition("//")[2].partition(".")[0]

    names = (
        "own/config.toml",
        "own/config",
        "home/.cargo/config.toml",
        "home/.cargo/config",
        "home/src/tester/.cargo/config.toml",
    )
    for number, name in enumerate(names):
        write(tmp_path / name, render(str(number)))
        assert ask() == str(number)


def test_a_crate_of_a_directory_is_copied_and_what_nobody_asked_for_is_not(
    home: Path, project: Path, tmp_path: Path
) -> None:
    for name, version in (("libc", "0.2.1"), ("libc-old", "0.1.9"), ("other", "1.0.0")):
        crate = home / "vendor" / name
        text = f'[package]\nname = "{name.removesuffix("-old")}"\nversion = "{version}"\n'
        write(crate / "Cargo.toml", text)
        write(crate / "src/lib.rs", name)
        write(crate / ".cargo-checksum.json", "{}")
    text = '[source.crates-io]\nreplace-with = "v"\n[source.v]\ndirectory = "vendor"\n'
    write(home / ".cargo/config.toml", text)
    assert write_sources(project, {}, tmp_path / "cargo") == {
        "source": {
            "crates-io": {"replace-with": "v"},
            "v": {"directory": "/twinmod/cargo/sources/1"},
        }
    }
    copied = tmp_path / "cargo/sources/1"
    assert {str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file()} == {
        "libc-0.2.1/Cargo.toml",
        "libc-0.2.1/src/lib.rs",
        "libc-0.2.1/.cargo-checksum.json",
    }
    assert (copied / "libc-0.2.1/src/lib.rs").read_text() == "libc"


def test_a_local_registry_is_copied_with_its_index(
    home: Path, project: Path, tmp_path: Path
) -> None:
    for name in ("index/li/bc/libc", "libc-0.2.1.crate", "other-1.0.0.crate"):
        write(home / "registry" / name, name)
    write(
        home / "own/config",
        '[source.crates-io]\nreplace-with = "l"\n[source.l]\nlocal-registry = "registry"\n',
    )
    found = write_sources(project, {"CARGO_HOME": str(home / "own")}, tmp_path / "cargo")
    assert found["source"]["l"] == {"local-registry": "/twinmod/cargo/sources/1"}  # type: ignore[index]
    copied = tmp_path / "cargo/sources/1"
    assert {str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file()} == {
        "index/li/bc/libc",
        "libc-0.2.1.crate",
    }


def test_a_source_whose_folder_is_not_there_is_named(
    home: Path, project: Path, tmp_path: Path
) -> None:
    text = '[source.crates-io]\nreplace-with = "v"\n[source.v]\ndirectory = "vendor"\n'
    write(home / ".cargo/config.toml", text)
    with pytest.raises(ConfigError, match="source v") as caught:
        write_sources(project, {}, tmp_path / "cargo")
    assert caught.value.facts == (("directory", str(home / "vendor")),)


def test_a_token_is_there_to_fetch_and_is_not_kept(
    home: Path, project: Path, tmp_path: Path
) -> None:
    text = (
        '[source.crates-io]\nreplace-with = "r"\n[registries.r]\nindex = "sparse+https://r"\n'
        'token = "secret"\ncredential-provider = "/bin/x"\n'
    )
    write(home / ".cargo/config.toml", text)
    found = write_sources(project, {}, tmp_path / "cargo")
    assert found["registries"] == {"r": {"index": "sparse+https://r", "token": "secret"}}
    assert (tmp_path / "cargo/config.toml").stat().st_mode & 0o077 == 0
    registries.forget_tokens(tmp_path / "cargo")
    assert tomllib.loads((tmp_path / "cargo/config.toml").read_text()) == {
        "source": {"crates-io": {"replace-with": "r"}},
        "registries": {"r": {"index": "sparse+https://r"}},
    }


def test_without_sources_a_cargo_home_has_no_configuration(
    home: Path, project: Path, tmp_path: Path
) -> None:
    write(home / ".cargo/config.toml", '[build]\nrustc-wrapper = "sccache"\n')
    assert write_sources(project, {}, tmp_path / "cargo") == {}
    registries.forget_tokens(tmp_path / "cargo")
    assert not (tmp_path / "cargo/config.toml").exists()


@pytest.mark.parametrize("source", ["configuration", "environment", "bundle"])
def test_a_certificate_that_cargo_names_is_bound(home: Path, project: Path, source: str) -> None:
    path = write(home / "ca.pem", "")
    text = '[http]\ncainfo = "ca.pem"\n' if source == "configuration" else ""
    write(home / ".cargo/config.toml", text)
    environment = {
        "configuration": {},
        "environment": {"CARGO_HTTP_CAINFO": str(path)},
        "bundle": {"SSL_CERT_FILE": str(path)},
    }[source]
    settings, binds = registries.find_cargo_trust(registries.read_cargo(project, environment))
    (bind,) = binds
    assert bind.source_path == path
    assert dict(settings)["CARGO_HTTP_CAINFO"] == str(bind.target_path)


@pytest.mark.parametrize("text", [b"[source\n", b"\xff", b"a = 1\na = 2\n"])
def test_a_configuration_of_cargo_that_is_none_is_named(
    home: Path, project: Path, text: bytes
) -> None:
    path = write(home / ".cargo/config.toml", "")
    path.write_bytes(text)
    with pytest.raises(ConfigError, match="cargo's configuration") as caught:
        registries.read_cargo(project, {})
    assert caught.value.facts[0] == ("file", str(path))


@pytest.mark.parametrize("text", ["source = 3\n", "[source]\nx = 3\n", "http = []\n"])
def test_what_is_no_table_of_sources_is_none(home: Path, project: Path, text: str) -> None:
    write(home / ".cargo/config.toml", text)
    settings = registries.read_cargo(project, {})
    assert (settings.sources, settings.proxy) == ({}, "")


@pytest.mark.parametrize("text", ['a"b', "\\", "\x7f\x01\n", "\u00e9\U0001f600", "a.b", ""])
def test_any_text_can_be_written(text: str) -> None:
    sources = {text: {"registry": text}}
    assert tomllib.loads(registries.render_cargo_config(sources, {})) == {"source": sources}


def test_no_product_tells_that_its_crates_came_from_a_directory(
    root: Chroot, tmp_path: Path
) -> None:
    for name in ("registry/src/mirror-1", "sources/1"):
        (tmp_path / name).mkdir(parents=True)
    folders = wheels.find_crate_folders(tmp_path)
    assert wheels.plan_flags(folders) == (
        "--remap-path-prefix=/twinmod=/build "
        "--remap-path-prefix=/twinmod/cargo/registry/src/mirror-1=/crates "
        "--remap-path-prefix=/twinmod/cargo/sources/1=/crates"
    )

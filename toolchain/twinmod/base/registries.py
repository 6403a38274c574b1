# SPDX-License-Identifier: GPL-2.0-only
"""Where a person's pip and cargo find packages: what of their settings goes into the chroot.

Index, trust and proxy; no other setting, since the chroot has not what it would name.

Source: pip 25.1, _internal/configuration.py and cli/parser.py; The Cargo Book, "Configuration" and
"Source Replacement".
"""

import configparser
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from twinmod.base import network, sandbox
from twinmod.base.sandbox import Bind
from twinmod.errors import ConfigError

#: Where pip's own file and all certificates appear inside the chroot.
PIP_CONFIG = sandbox.INSIDE / "pip.conf"
TRUST = sandbox.INSIDE / "trust"

#: Where pip looks beside the folders that XDG names.
SYSTEM_DIR = Path("/etc")

#: What pip is told; the last two name files.
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "cert", "client-cert")
PIP_FILES = ("cert", "client-cert")

#: Where pip looks for a key of `pip install`, the last one that has it goes.
PIP_SECTIONS = ("global", "install", ":env:")

#: Where CARGO_HOME appears inside the chroot, and, below it, what a source in a folder has.
CARGO_HOME = sandbox.INSIDE / "cargo"
SOURCES = "sources"

#: What a source of cargo may say of a folder, and what a registry may say at all.
CARGO_FOLDERS = ("directory", "local-registry")
REGISTRY_KEYS = ("index", "protocol", "token")

#: What programs that use OpenSSL or requests trust when their own settings do not say.
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

Tables = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipSettings:
    """What pip reads inside the chroot."""

    # The text of its configuration.
    text: str
    # The certificates that it names.
    binds: tuple[Bind, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CargoSettings:
    """Where cargo finds crates."""

    # By name; folders are absolute.
    sources: Tables
    registries: Tables
    # "" for what the environment says.
    proxy: str
    # The certificates that it trusts, None for those of the host.
    authority: Path | None


# -- pip --------------------------------------------------------------------------------------


def find_pip_configs(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that pip reads on this host, the one that goes first last.

    They are the system's, the user's, that of the Python that runs this, and PIP_CONFIG_FILE. The
    last replaces the user's, and all of them when it is /dev/null.
    """
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return ()
    system = platformdirs.site_config_dir("pip", appauthor=False, multipath=True)
    user = (Path.home() / ".pip", Path(platformdirs.user_config_dir("pip", appauthor=False)))
    folders = (
        *map(Path, system.split(os.pathsep)),
        SYSTEM_DIR,
        *(() if named and os.access(named, os.F_OK) else user),
        Path(sys.prefix),
    )
    paths = (*(folder / "pip.conf" for folder in folders), *((Path(named),) if named else ()))
    return tuple(path for path in paths if _is_readable(path))


def _is_readable(path: Path) -> bool:
    return os.access(path, os.R_OK) and path.is_file()


def parse_pip_config(text: str) -> dict[tuple[str, str], str]:
    """Return the values of pip's configuration by (section, key).

    Raises:
        configparser.Error: It is no configuration.
    """
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return {
        (section, _name_key(key)): value
        for section in parser.sections()
        for key, value in parser.items(section)
        # As pip, which takes an empty one for none.
        if value
    }


def _name_key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def read_pip_values(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a person's pip uses of PIP_KEYS for `pip install`.

    Raises:
        ConfigError: One of its files cannot be read.
    """
    found: dict[tuple[str, str], str] = {}
    for path in find_pip_configs(environment):
        try:
            found.update(parse_pip_config(path.read_text()))
        except (OSError, ValueError, configparser.Error) as error:
            raise ConfigError(
                "pip's configuration cannot be read",
                hint="pip config debug",
                facts=(("file", str(path)), ("why", str(error))),
            ) from error
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            found[":env:", _name_key(name.removeprefix("PIP_"))] = value
    values = {
        key: found[section, key]
        for section in PIP_SECTIONS
        for key in PIP_KEYS
        if (section, key) in found
    }
    bundle = _find_bundle(environment)
    return {"cert": str(bundle), **values} if bundle else values


def read_pip(environment: Mapping[str, str]) -> PipSettings:
    """Return what a person's pip knows of index, trust and proxy, for one inside the chroot.

    Raises:
        ConfigError: A file of its configuration cannot be read, or a certificate is not there.
    """
    values, binds = read_pip_values(environment), []
    for key in PIP_FILES:
        if key in values:
            target = TRUST / f"pip-{key}"
            binds.append(_bind_certificate(Path(values[key]), target, f"pip's {key}"))
            values[key] = str(target)
    lines = (f"{key} = {' '.join(values[key].split())}\n" for key in PIP_KEYS if key in values)
    return PipSettings(text=f"[global]\n{''.join(lines)}", binds=tuple(binds))


# -- trust ------------------------------------------------------------------------------------


def _find_bundle(environment: Mapping[str, str]) -> Path | None:
    paths = (Path(environment[name]) for name in BUNDLES if environment.get(name))
    return next((path for path in paths if path.exists()), None)


def _bind_certificate(path: Path, target: PurePosixPath, what: str) -> Bind:
    source_path = path.expanduser().absolute()
    if not source_path.exists():
        raise ConfigError(
            f"{what} names a certificate that is not there",
            facts=(("file", str(source_path)),),
            hint="correct it, or take it out",
        )
    return Bind(source_path=source_path.resolve(), target_path=target)


# -- cargo ------------------------------------------------------------------------------------


def find_cargo_configs(project_dir: Path, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that cargo reads in a project's folder, the one that goes first last.

    They are CARGO_HOME's, then those of each folder down to the project's own.
    """
    home = Path(environment.get("CARGO_HOME") or Path.home() / ".cargo").absolute()
    above = (folder / ".cargo" for folder in (*reversed(project_dir.parents), project_dir))
    folders = dict.fromkeys((home, *above))
    # Of two in one folder cargo takes the one without a suffix.
    pairs = ((folder / "config", folder / "config.toml") for folder in folders)
    found = (next((path for path in pair if _is_readable(path)), None) for pair in pairs)
    return tuple(path for path in found if path)


def parse_cargo_config(text: str, base_dir: Path) -> dict[str, Tables]:
    """Return ``source``, ``registries`` and ``http`` of cargo's configuration; of these the texts.

    Args:
        text: Its content.
        base_dir: What a path in it is relative to.

    Raises:
        tomllib.TOMLDecodeError: It is none.
    """
    document = tomllib.loads(text)
    tables = {name: _keep_tables(document.get(name)) for name in ("source", "registries")}
    http = _keep_tables({"http": document.get("http")})
    for table in (*tables["source"].values(), *http.values()):
        for key in (*CARGO_FOLDERS, "cainfo"):
            if key in table:
                table[key] = str(base_dir / table[key])
    return {**tables, "http": http}


def _keep_tables(value: Any) -> Tables:
    items = value.items() if isinstance(value, dict) else ()
    return {
        name: {key: text for key, text in table.items() if isinstance(text, str)}
        for name, table in items
        if isinstance(table, dict)
    }


def read_cargo(project_dir: Path, environment: Mapping[str, str]) -> CargoSettings:
    """Return where a person's cargo finds a project's crates.

    Raises:
        ConfigError: A file of its configuration cannot be read.
    """
    merged: dict[str, Tables] = {"source": {}, "registries": {}, "http": {}}
    for path in find_cargo_configs(project_dir, environment):
        try:
            found = parse_cargo_config(path.read_text(), path.parent.parent)
        except (OSError, ValueError) as error:
            raise ConfigError(
                "cargo's configuration cannot be read",
                facts=(("file", str(path)), ("why", str(error))),
            ) from error
        for kind, tables in found.items():
            for name, table in tables.items():
                merged[kind].setdefault(name, {}).update(table)
    http = merged["http"].get("http", {})
    authority = environment.get("CARGO_HTTP_CAINFO") or http.get("cainfo")
    return CargoSettings(
        sources=_keep_used(merged["source"]),
        registries=merged["registries"],
        proxy=environment.get("CARGO_HTTP_PROXY") or http.get("proxy", ""),
        authority=Path(authority) if authority else _find_bundle(environment),
    )


def _keep_used(sources: Tables) -> Tables:
    """Return the sources that replace another one, or are replaced."""
    used = {name for name, table in sources.items() if "replace-with" in table}
    used |= {sources[name]["replace-with"] for name in used}
    return {name: table for name, table in sources.items() if name in used}


def find_cargo_trust(
    settings: CargoSettings,
) -> tuple[tuple[tuple[str, str], ...], tuple[Bind, ...]]:
    """Return the environment and the binds by which cargo inside the chroot reaches a registry.

    Raises:
        ConfigError: The certificate that it names is not there.
    """
    proxy = (("CARGO_HTTP_PROXY", settings.proxy),) if settings.proxy else ()
    if settings.authority is None:
        return (*proxy, ("CARGO_HTTP_CAINFO", str(network.CA_BUNDLES[0]))), ()
    target = TRUST / "cargo-cainfo"
    bind = _bind_certificate(settings.authority, target, "cargo's cainfo")
    return (*proxy, ("CARGO_HTTP_CAINFO", str(target))), (bind,)


def write_cargo_sources(settings: CargoSettings, lock_text: str, home_dir: Path) -> None:
    """Write a CARGO_HOME whose cargo finds crates where a person's own does.

    What a source has in a folder is copied: a build that finds it in the cache needs neither the
    folder nor the network later.

    Args:
        settings: Theirs.
        lock_text: The Cargo.lock whose crates are wanted.
        home_dir: The CARGO_HOME; gets ``config.toml`` and ``sources/``.

    Raises:
        ConfigError: A source names a folder that is not there.
    """
    sources = {name: dict(table) for name, table in settings.sources.items()}
    wanted = parse_lock(lock_text)
    for number, (name, table) in enumerate(sources.items()):
        for key in CARGO_FOLDERS:
            if key in table:
                folder = f"{SOURCES}/{number}"
                _copy_source(name, key, Path(table[key]), wanted, home_dir / folder)
                table[key] = str(CARGO_HOME / folder)
    if sources or settings.registries:
        path = home_dir / "config.toml"
        path.touch(mode=0o600)
        path.write_text(render_cargo_config(sources, settings.registries))


def forget_tokens(home_dir: Path) -> None:
    """Leave no token in a CARGO_HOME that is kept: nothing more is fetched with it."""
    path = home_dir / "config.toml"
    if path.is_file():
        tables = parse_cargo_config(path.read_text(), Path("/"))
        for table in tables["registries"].values():
            table.pop("token", None)
        path.write_text(render_cargo_config(tables["source"], tables["registries"]))


def parse_lock(text: str) -> set[tuple[str, str]]:
    """Return (name, version) of the crates of a Cargo.lock."""
    packages = tomllib.loads(text).get("package", ())
    return {(package["name"], package["version"]) for package in packages}


def _copy_source(
    name: str, key: str, folder: Path, wanted: set[tuple[str, str]], target_dir: Path
) -> None:
    if not folder.is_dir():
        raise ConfigError(
            f"cargo's source {name} is in a folder that is not there",
            facts=((key, str(folder)),),
            hint="correct it in cargo's configuration",
        )
    target_dir.mkdir(parents=True)
    if key == "local-registry":
        shutil.copytree(folder / "index", target_dir / "index")
        for crate, version in wanted:
            path = folder / f"{crate}-{version}.crate"
            if path.is_file():
                shutil.copy2(path, target_dir)
        return
    for path, crate, version in _list_crates(folder):
        if (crate, version) in wanted:
            # As a registry's are called, so that no path in a product tells where it came from.
            shutil.copytree(path, target_dir / f"{crate}-{version}")


def _list_crates(folder: Path) -> Iterator[tuple[Path, str, str]]:
    for path in sorted(folder.glob("[!.]*/Cargo.toml")):
        package = tomllib.loads(path.read_text()).get("package", {})
        yield path.parent, str(package.get("name")), str(package.get("version"))


def render_cargo_config(sources: Tables, registries: Tables) -> str:
    """Return cargo's configuration with sources, and registries of which REGISTRY_KEYS are kept."""
    kept = {
        name: {key: text for key, text in table.items() if key in REGISTRY_KEYS}
        for name, table in registries.items()
    }
    return "".join(
        f"[{kind}.{_quote(name)}]\n"
        + "".join(f"{_quote(key)} = {_quote(text)}\n" for key, text in table.items())
        for kind, tables in (("source", sources), ("registries", kept))
        for name, table in tables.items()
    )


def _quote(text: str) -> str:
    """Return a basic string of TOML: JSON's, but that DEL must be escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

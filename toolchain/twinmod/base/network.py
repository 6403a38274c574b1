# SPDX-License-Identifier: GPL-2.0-only
"""How a program inside a chroot reaches the network that the host reaches.

Only the setup steps have it; nothing that runs later does.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from twinmod.base.sandbox import Bind
from twinmod.errors import ConfigError, MissingToolError, TwinmodError

CA_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
)

PROXY_SETTINGS = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)

#: What apt says of a signature by a key that it does not have, or that has expired there: with
#: gpgv, then with sqv.
_MISSING_KEY = re.compile(
    r"NO_PUBKEY|EXPKEYSIG|REVKEYSIG|KEYEXPIRED|public key is not available"
    r"|Missing key|primary key is not live|Expired on"
)


def find_binds() -> tuple[Bind, ...]:
    """Return what a program in the chroot needs of the host to reach the network."""
    binds = [
        Bind(
            source_path=Path("/etc/resolv.conf").resolve(),
            target_path=PurePosixPath("/etc/resolv.conf"),
        )
    ]
    bundle = next((path for path in CA_BUNDLES if path.exists()), None)
    if bundle is not None:
        # Networks that look into TLS add their own authority to the host's.
        binds.append(Bind(source_path=bundle.resolve(), target_path=PurePosixPath(CA_BUNDLES[0])))
    return tuple(bind for bind in binds if bind.source_path.exists())


def plan_environment(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the proxies that the caller uses."""
    return tuple((name, environment[name]) for name in PROXY_SETTINGS if name in environment)


def parse_mirror(sources: str) -> str | None:
    """Return the first Debian mirror that apt sources name, in either of their formats.

    Args:
        sources: The text of sources.list and of the files beside it.

    Returns:
        A URI without its trailing slash, or None. It ends in ``/debian`` and serves ``main``:
        vendors' archives have components of their own, the security archive another path.
    """
    for stanza in re.split(r"\n\s*\n", sources):
        for uri, components in (*_parse_deb822(stanza), *_parse_one_line(stanza)):
            if "main" in components and uri.rstrip("/").endswith("/debian"):
                return uri.rstrip("/")
    return None


def _parse_deb822(stanza: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return (URI, components) of one stanza in the format of ``*.sources``."""
    pairs = (line.partition(":") for line in stanza.splitlines() if not line.startswith("#"))
    fields = {name.strip().lower(): value.split() for name, colon, value in pairs if colon}
    if "deb" not in fields.get("types", ()) or fields.get("enabled", ["yes"]) == ["no"]:
        return ()
    return tuple((uri, tuple(fields.get("components", ()))) for uri in fields.get("uris", ()))


def _parse_one_line(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return (URI, components) of each line in the format of ``sources.list``."""
    lines = (re.sub(r"\[[^]]*\]", "", line).split() for line in text.splitlines())
    return tuple(
        (words[1], tuple(words[3:])) for words in lines if words[:1] == ["deb"] and words[3:]
    )


def read_host_mirror() -> str | None:
    """Return the mirror of a Debian host, None elsewhere."""
    try:
        if not re.search(r"^ID=\"?debian", Path("/etc/os-release").read_text(), re.MULTILINE):
            return None
    except OSError:
        return None
    folder = Path("/etc/apt/sources.list.d")
    paths = (
        Path("/etc/apt/sources.list"),
        *sorted(folder.glob("*.sources")),
        *sorted(folder.glob("*.list")),
    )
    texts = (path.read_text(errors="replace") for path in paths if path.is_file())
    return parse_mirror("\n".join(texts))


def find_mirror(configured: str) -> str | None:
    """Return the mirror: the configured one, a Debian host's own, or None for the default."""
    return configured or read_host_mirror()


def plan_suite_error(error: TwinmodError, suite: str, upgrade: str) -> TwinmodError:
    """Return a failed download's error, with what apt says of a suite as its cause.

    Args:
        error: The download's.
        suite: What was asked for.
        upgrade: What gives newer keys to whoever checks the suite's signature.

    Returns:
        A ConfigError for a suite that the mirror lacks, which is the user's to mend; an error that
        names the keys when they are too old; the same error otherwise.
    """
    text = "\n".join(value for _, value in error.facts)
    if _MISSING_KEY.search(text):
        return MissingToolError(
            f"the Debian keys here are older than those that sign suite {suite!r}: "
            "the package debian-archive-keyring must be upgraded",
            facts=error.facts,
            hint=upgrade,
        )
    if re.search(r"does not have a Release file|404 +Not Found", text):
        return ConfigError(
            f"the mirror has no suite {suite!r}",
            facts=error.facts,
            hint="correct the suite in [tool.twinmod], or name another mirror there",
        )
    return error

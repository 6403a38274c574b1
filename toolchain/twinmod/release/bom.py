# SPDX-License-Identifier: GPL-2.0-only
"""What the wheels of a release need: CycloneDX, by its own library, which only a release has. Pure.

Serial numbers are made of the wheel's sum, the time is the commit's, and the library sorts: the
same wheel gets the same document.
"""

import re
import tomllib
import uuid
from datetime import UTC, datetime

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from twinmod.errors import BuildError
from twinmod.release.model import Release

#: Serial numbers are made of what they identify, below this one.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://twinmod.invalid/sbom")


def parse_lock(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return (version, SHA-256s) of every distribution of a hashed requirements file, by name."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for entry in re.split(r"\n(?=\S)", text.replace("\\\n", " ")):
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", entry)
        if match:
            found[match[1]] = match[2], tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
    return found


def plan_component(registry: str, name: str, version: str, sha256: str = "") -> Component:
    """Return a library of a registry.

    Args:
        registry: As a package URL names it: "pypi", "cargo".
        name: Of the library.
        version: Of the library.
        sha256: Of its file, "" for one of several files.
    """
    purl = PackageURL(type=registry, name=name, version=version)
    hashes = (HashType(alg=HashAlgorithm.SHA_256, content=sha256),) if sha256 else ()
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=purl.to_string(),
        purl=purl,
        hashes=hashes,
    )


def plan_python_components(lock: str) -> tuple[Component, ...]:
    """Return the distributions of a lock."""
    return tuple(
        plan_component("pypi", name, version) for name, (version, _) in parse_lock(lock).items()
    )


def plan_crate_components(lock: str, own: str) -> tuple[Component, ...]:
    """Return the crates of a Cargo.lock, but for our own."""
    return tuple(
        plan_component("cargo", crate["name"], crate["version"], crate["checksum"])
        for crate in tomllib.loads(lock)["package"]
        if crate["name"] != own
    )


def plan_bom(release: Release, wheel: str, sha256: str, components: tuple[Component, ...]) -> Bom:
    """Return the bill of materials of one wheel.

    Args:
        release: Which it belongs to.
        wheel: Its file's name.
        sha256: Of the file.
        components: What it needs.
    """
    name = wheel.partition("-")[0].replace("_", "-")
    own = plan_component("pypi", name, release.version, sha256)
    own.licenses.add(DisjunctiveLicense(id="GPL-2.0-only"))
    own.properties.add(Property(name="twinmod:file", value=wheel))
    metadata = BomMetaData(component=own, timestamp=datetime.fromtimestamp(release.epoch, UTC))
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, sha256), metadata=metadata, components=components)
    bom.register_dependency(own, components)
    return bom


def render_bom(bom: Bom) -> str:
    """Return a bill of materials as CycloneDX 1.6, JSON, checked against its schema.

    Raises:
        BuildError: The schema does not allow it.
    """
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise BuildError("a bill of materials is not CycloneDX", facts=(("why", str(problem)),))
    return text

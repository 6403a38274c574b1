# SPDX-License-Identifier: GPL-2.0-only
"""What is in a release, for programs that ask: SPDX for modules, CycloneDX for wheels."""

import json
import os
import re
import shutil
import tempfile
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from twinmod.base import process, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind
from twinmod.builds.product import Product
from twinmod.errors import BuildError
from twinmod.kernels.model import KernelTree
from twinmod.release.model import Release

TIMEOUT_S = 120.0

#: Where a kernel has it; trixie's 6.12 has none.
TOOL = PurePosixPath("scripts/sbom/sbom.py")

#: What the kernel's tool writes of a module: its sources, itself, and how one became the other.
PARTS = ("source", "output", "build")

CYCLONEDX_VERSION = "1.6"

#: Its identifiers are made of what they identify, below this one.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://twinmod.invalid/sbom")


# -- modules ----------------------------------------------------------------------------------


def has_tool(tree: KernelTree) -> bool:
    """Tell whether a kernel can say what its modules are made of."""
    return (tree.source_dir / TOOL).is_file()


def plan_spdx(
    release: Release,
    product: Product,
    tree: KernelTree,
    inside: PurePosixPath,
    work_dir: Path,
    binds: tuple[Bind, ...],
    hidden: tuple[PurePosixPath, ...],
) -> Command:
    """Return the kernel's own command that says what a module was made of.

    Args:
        release: Which it belongs to.
        product: The module.
        tree: Its kernel.
        inside: Where the module's folder lies inside the chroot.
        work_dir: Gets the documents.
        binds: Of the module's build.
        hidden: Of the module's build.

    Source: Documentation/tools/sbom/sbom.rst, Linux 7.3.
    """
    target = sandbox.INSIDE / "sbom"
    argv = (
        "env",
        "SRCARCH=x86",
        "python3",
        str(sandbox.LINUX / TOOL),
        "--src-tree",
        str(sandbox.LINUX),
        "--obj-tree",
        str(inside),
        "--roots",
        product.file_name,
        "--generate-spdx",
        "--prettify-json",
        "--output-directory",
        str(target),
        "--package-license",
        "GPL-2.0-only",
        "--package-version",
        release.version,
        "--package-copyright-text",
        "NOASSERTION",
    )
    entered = sandbox.plan_enter(
        tree.compilers,
        argv,
        hidden=hidden,
        working_dir=str(inside),
        binds=(*binds, Bind(source_path=work_dir, target_path=target, writable=True)),
    )
    return Command(
        argv=entered,
        purpose=f"what {product.module} is made of cannot be told",
        timeout_s=TIMEOUT_S,
    )


def read_spdx(
    release: Release,
    product: Product,
    tree: KernelTree,
    inside: PurePosixPath,
    binds: tuple[Bind, ...],
    hidden: tuple[PurePosixPath, ...],
) -> Iterator[tuple[str, bytes]]:
    """Yield (part, SPDX document) of what a module was made of; see plan_spdx.

    It takes its time from the module's file, and the kernel's configuration from beside it: so it
    looks at a copy of the module's folder.
    """
    with tempfile.TemporaryDirectory(prefix="twinmod-") as name:
        copy_dir, work_dir = Path(name) / "module", Path(name) / "sbom"
        shutil.copytree(product.path.parent, copy_dir, symlinks=True)
        shutil.copyfile(tree.build_dir / ".config", copy_dir / ".config")
        os.utime(copy_dir / product.file_name, (release.epoch, release.epoch))
        work_dir.mkdir()
        own = tuple(
            Bind(source_path=copy_dir, target_path=bind.target_path, writable=True)
            if bind.target_path == inside
            else bind
            for bind in binds
        )
        process.run(plan_spdx(release, product, tree, inside, work_dir, own, hidden))
        for part in PARTS:
            yield part, (work_dir / f"sbom-{part}.spdx.json").read_bytes()


# -- wheels -----------------------------------------------------------------------------------


def parse_lock(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return (version, SHA-256s) of every distribution of a hashed requirements file, by name."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for entry in re.split(r"\n(?=\S)", text.replace("\\\n", " ")):
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", entry)
        if match:
            found[match[1]] = match[2], tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
    return found


def plan_python_components(lock: str) -> tuple[dict[str, Any], ...]:
    """Return the distributions of a lock as CycloneDX has components."""
    return tuple(
        {
            "type": "library",
            "name": name,
            "version": version,
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "purl": f"pkg:pypi/{name}@{version}",
        }
        for name, (version, _) in sorted(parse_lock(lock).items())
    )


def plan_crate_components(lock: str, own: str) -> tuple[dict[str, Any], ...]:
    """Return the crates of a Cargo.lock, but for our own, as CycloneDX has components."""
    return tuple(
        {
            "type": "library",
            "name": crate["name"],
            "version": crate["version"],
            "bom-ref": f"pkg:cargo/{crate['name']}@{crate['version']}",
            "purl": f"pkg:cargo/{crate['name']}@{crate['version']}",
            "hashes": [{"alg": "SHA-256", "content": crate["checksum"]}],
        }
        for crate in sorted(tomllib.loads(lock)["package"], key=lambda c: (c["name"], c["version"]))
        if crate["name"] != own
    )


def plan_cyclonedx(
    release: Release, wheel: str, sha256: str, components: tuple[Mapping[str, Any], ...]
) -> dict[str, Any]:
    """Return a CycloneDX document of one wheel and what it needs.

    Args:
        release: Which it belongs to.
        wheel: Its file's name.
        sha256: Of the file.
        components: What it needs.

    Source: https://cyclonedx.org/docs/1.6/json/
    """
    name = wheel.partition("-")[0].replace("_", "-")
    purl = f"pkg:pypi/{name}@{release.version}"
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{CYCLONEDX_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": CYCLONEDX_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "name": name,
                "version": release.version,
                "bom-ref": purl,
                "purl": purl,
                "licenses": [{"license": {"id": "GPL-2.0-only"}}],
                "hashes": [{"alg": "SHA-256", "content": sha256}],
                "properties": [{"name": "twinmod:file", "value": wheel}],
            }
        },
        "components": [dict(component) for component in components],
        "dependencies": [{"ref": purl, "dependsOn": [c["bom-ref"] for c in components]}],
    }


def require_valid(document: Mapping[str, Any]) -> None:
    """Refuse a CycloneDX document that its schema does not allow.

    Raises:
        BuildError: It does not.
    """
    # Only a release has it installed.
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    if problem is not None:
        raise BuildError("a bill of materials is not CycloneDX", facts=(("why", str(problem)),))

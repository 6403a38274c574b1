# SPDX-License-Identifier: GPL-2.0-only
"""What is in a release, for programs that ask."""

import json
import uuid

import pytest
from cyclonedx.model.component import Component

from twinmod.base import templates
from twinmod.errors import BuildError
from twinmod.release import bom
from twinmod.release.model import Release

CHECKOUT = templates.find_shipped_dir()

WHAT = Release(version="0.1.0", commit="0" * 40, epoch=7, source_dir=CHECKOUT)

LOCK = """\
click==8.5.0 ; python_version >= "3.11" \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
jinja2==3.1.6 \\
    --hash=sha256:{a}
""".format(a="a" * 64, b="b" * 64)


def test_a_lock_is_read_with_its_markers_and_sums() -> None:
    assert bom.parse_lock(LOCK) == {
        "click": ("8.5.0", ("a" * 64, "b" * 64)),
        "jinja2": ("3.1.6", ("a" * 64,)),
    }


def test_our_own_lock_has_every_direct_dependency() -> None:
    found = bom.parse_lock((CHECKOUT / "toolchain/locks/run.txt").read_text())
    assert {"click", "jinja2", "msgspec", "pyelftools"} <= set(found)
    assert all(digests for _, digests in found.values())


def test_crates_come_with_their_sums_and_without_our_own() -> None:
    text = (CHECKOUT / "rust_tester/Cargo.lock").read_text()
    found = {c.name: c for c in bom.plan_crate_components(text, "mdriver-tester-rust")}
    assert "pyo3" in found
    assert "mdriver-tester-rust" not in found
    (digest,) = found["pyo3"].hashes
    assert len(digest.content) == 64


def render(components: tuple[Component, ...], what: Release = WHAT) -> str:
    wheel = f"mdriver_tester_c-{what.version}-x.whl"
    return bom.render_bom(bom.plan_bom(what, wheel, "c" * 64, components))


def test_a_document_names_its_wheel_and_what_that_needs() -> None:
    document = json.loads(render(bom.plan_python_components(LOCK)))
    purl = "pkg:pypi/mdriver-tester-c@0.1.0"
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"] == {
        "component": {
            "bom-ref": purl,
            "hashes": [{"alg": "SHA-256", "content": "c" * 64}],
            "licenses": [{"license": {"id": "GPL-2.0-only"}}],
            "name": "mdriver-tester-c",
            "properties": [{"name": "twinmod:file", "value": "mdriver_tester_c-0.1.0-x.whl"}],
            "purl": purl,
            "type": "library",
            "version": "0.1.0",
        },
        "timestamp": "1970-01-01T00:00:07+00:00",
    }
    needed = ["pkg:pypi/click@8.5.0", "pkg:pypi/jinja2@3.1.6"]
    assert [component["purl"] for component in document["components"]] == needed
    edges = {edge["ref"]: edge.get("dependsOn", []) for edge in document["dependencies"]}
    assert edges == {purl: needed, needed[0]: [], needed[1]: []}


def test_a_document_is_the_same_each_time_in_whatever_order_its_lock_is() -> None:
    components = bom.plan_python_components(LOCK)
    text = render(components)
    assert render(components) == text
    assert render(components[::-1]) == text
    assert json.loads(text)["serialNumber"] == uuid.uuid5(bom.NAMESPACE, "c" * 64).urn


def test_a_version_that_has_a_plus_is_escaped_in_a_package_url() -> None:
    what = Release(version="0.1.0.dev0+g1", commit="0" * 40, epoch=7, source_dir=CHECKOUT)
    own = json.loads(render((), what))["metadata"]["component"]
    assert own["version"] == "0.1.0.dev0+g1"
    assert own["purl"] == own["bom-ref"] == "pkg:pypi/mdriver-tester-c@0.1.0.dev0%2Bg1"


def test_a_document_that_the_schema_does_not_allow_is_refused() -> None:
    with pytest.raises(BuildError, match="not CycloneDX") as caught:
        render((bom.plan_component("cargo", "x", "1", "no sum"),))
    assert "no sum" in dict(caught.value.facts)["why"]

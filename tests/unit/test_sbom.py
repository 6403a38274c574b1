# SPDX-License-Identifier: GPL-2.0-only
"""What is in a release, for programs that ask."""

from twinmod.base import templates
from twinmod.release import sbom
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
    assert sbom.parse_lock(LOCK) == {
        "click": ("8.5.0", ("a" * 64, "b" * 64)),
        "jinja2": ("3.1.6", ("a" * 64,)),
    }


def test_our_own_lock_has_every_direct_dependency() -> None:
    found = sbom.parse_lock((CHECKOUT / "toolchain/locks/run.txt").read_text())
    assert {"click", "jinja2", "msgspec", "pyelftools"} <= set(found)
    assert all(digests for _, digests in found.values())


def test_crates_come_with_their_sums_and_without_our_own() -> None:
    text = (CHECKOUT / "rust_tester/Cargo.lock").read_text()
    found = {c["name"]: c for c in sbom.plan_crate_components(text, "mdriver-tester-rust")}
    assert "pyo3" in found
    assert "mdriver-tester-rust" not in found
    assert len(found["pyo3"]["hashes"][0]["content"]) == 64


def test_a_document_names_its_wheel_and_is_the_same_each_time() -> None:
    components = sbom.plan_python_components(LOCK)
    made = [
        sbom.plan_cyclonedx(WHAT, "mdriver_tester_c-0.1.0-x.whl", "c" * 64, components)
        for _ in range(2)
    ]
    assert made[0] == made[1]
    own = made[0]["metadata"]["component"]
    assert (own["name"], own["purl"]) == ("mdriver-tester-c", "pkg:pypi/mdriver-tester-c@0.1.0")
    assert made[0]["dependencies"][0]["dependsOn"] == [
        "pkg:pypi/click@8.5.0",
        "pkg:pypi/jinja2@3.1.6",
    ]

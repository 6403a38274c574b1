# SPDX-License-Identifier: GPL-2.0-only
"""What a release is made of: versions, names, sums, evidence."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from twinmod.base import documents, sandbox
from twinmod.base.progress import Progress
from twinmod.builds import signing
from twinmod.builds.product import Product
from twinmod.cells.report import Totals
from twinmod.errors import ConfigError
from twinmod.kernels.model import KernelTree
from twinmod.matrix.report import TestReport, TestsReport
from twinmod.project import config as project_config
from twinmod.release import index as release_index
from twinmod.release import provenance, run
from twinmod.release.model import Release
from twinmod.workspace import Prepared

CHECKOUT = Path(__file__).resolve().parents[2]

MakeElf = Callable[[dict[str, str], tuple[str, ...], tuple[str, ...]], bytes]

COMMIT = "0123456789abcdef0123456789abcdef01234567"

WHAT = Release(version="0.1.0", commit=COMMIT, epoch=7, source_dir=Path("/source"))


@pytest.mark.parametrize(
    ("tag", "dirty", "version"),
    [
        ("v0.1.0", False, "0.1.0"),
        ("", False, "0.1.0+g0123456789ab"),
        ("", True, "0.1.0+g0123456789ab.dirty"),
        ("v0.1.0", True, "0.1.0+g0123456789ab.dirty"),
    ],
)
def test_only_a_tagged_commit_has_the_bare_version(tag: str, dirty: bool, version: str) -> None:
    assert release_index.plan_version("0.1.0", COMMIT, tag, dirty=dirty) == version


def test_a_tag_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"v0\.2\.0 is not the tag of version 0\.1\.0"):
        release_index.plan_version("0.1.0", COMMIT, "v0.2.0", dirty=False)


def test_a_project_whose_version_has_a_commit_in_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="what follows the") as caught:
        release_index.plan_version("0.1.0+g1a2b", COMMIT, "", dirty=False)
    assert caught.value.hint == "echo 0.1.0 > VERSION"


@pytest.mark.parametrize("said", ["0.1.0", "0.1"])
@pytest.mark.parametrize("version", ["0.1.0", "0.1.0+g0123456789ab.dirty"])
def test_a_module_says_the_public_part_of_its_releases_version(version: str, said: str) -> None:
    release_index.check_version(version, "mdriver_c", said)


@pytest.fixture
def prepared(tree: KernelTree, tmp_path: Path) -> Prepared:
    return Prepared(chroot=tree.compilers, tree=tree, site_dir=tmp_path, crates_dir=tmp_path)


#: Takes what a module says as its version, returns what it is packed into.
Pack = Callable[[str], list[tuple[str, bytes]]]


@pytest.fixture
def pack(
    product: Product,
    prepared: Prepared,
    make_elf: MakeElf,
    tmp_path: Path,
    progress: Progress,
) -> Pack:
    (tmp_path / "LICENSE").write_text("GPL\n")
    config = project_config.read_config(CHECKOUT, tmp_path)
    what = replace(WHAT, version="0.1.0+g0123456789ab", source_dir=tmp_path)
    built = replace(product, path=tmp_path / "mdriver_c.ko")

    def pack_module(said: str) -> list[tuple[str, bytes]]:
        modinfo = {"version": said} if said else {"license": "GPL"}
        built.path.write_bytes(make_elf(modinfo, (), ()))
        return list(run.pack_modules(what, config, prepared, (built,), progress))

    return pack_module


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("0.1.1", "version 0.1.1"),
        ("0.1.0rc1", "version 0.1.0rc1"),
        ("", "none"),
        ("7 of 9", "version 7 of 9"),
        ("0.1.0+g0123456789ab", r"version 0.1.0\+g0123456789ab"),
    ],
)
def test_a_module_of_another_version_is_not_packed(said: str, shown: str, pack: Pack) -> None:
    with pytest.raises(ConfigError, match=f"^the release is 0.1.0, and mdriver_c says {shown}$"):
        pack(said)


def test_the_tag_of_a_version_is_found_among_others() -> None:
    assert release_index.choose_tag(("stable", "v0.1.0"), "0.1.0") == "v0.1.0"
    assert release_index.choose_tag(("stable", "v0.2.0"), "0.1.0") == ""


def test_sums_are_those_that_sha256sum_checks_and_come_back() -> None:
    files = {"b": b"2", "a dir/a": b"1"}
    text = release_index.render_sums(files)
    assert text.splitlines()[0].endswith("  a dir/a")
    assert release_index.compare_sums(release_index.parse_sums(text), files) == ()


def test_a_file_that_was_changed_taken_away_or_added_is_named() -> None:
    stated = release_index.parse_sums(release_index.render_sums({"a": b"1", "b": b"2"}))
    wrong = dict(release_index.compare_sums(stated, {"a": b"3", "c": b""}))
    assert wrong["a"].startswith("was changed: sha256 ")
    assert (wrong["b"], wrong["c"]) == ("is missing", "has no sum")


def test_a_line_that_is_no_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="no sum"):
        release_index.parse_sums("d41d8cd98f00b204e9800998ecf8427e  md5\n")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("mdriver-c-0.1.0-7.3.4+deb13-amd64-x86_64.tar.zst", "module"),
        ("mdriver-c-0.1.0-7.3.4+deb13-amd64-x86_64.modinfo.json", "modinfo"),
        ("mdriver-c-0.1.0-7.3.4+deb13-amd64-x86_64.source.spdx.json", "sbom"),
        ("mdriver-rust-dkms-0.1.0-1-any.pkg.tar.zst", "package"),
        ("mdriver-rust-dkms_0.1.0_all.deb", "package"),
        ("mdriver-rust-dkms-0.1.0.tar.gz", "source"),
        ("twinmod-0.1.0-py3-none-any.whl", "wheel"),
        ("twinmod-0.1.0.tar.gz", "source"),
        ("provenance.intoto.json", "provenance"),
        ("signed/mdriver-c-0.1.0-7.3.4-x86_64.ko", "signed"),
    ],
)
def test_every_artifact_has_a_kind(path: str, kind: str) -> None:
    assert release_index.classify(path) == kind


def test_what_is_no_artifact_is_refused() -> None:
    with pytest.raises(ValueError, match="no artifact"):
        release_index.classify("notes.txt")


def test_an_index_has_every_artifact_with_its_sum_and_no_time_of_now() -> None:
    index = release_index.plan_index(WHAT, "v0.1.0", (), {"twinmod-0.1.0.tar.gz": b"1"})
    (entry,) = index.artifacts
    assert entry.sha256 == release_index.read_digest(b"1")
    shown = json.loads(documents.encode(index))
    assert (shown["schema"], shown["epoch"]) == ("twinmod.release/1", 7)
    assert index == release_index.plan_index(WHAT, "v0.1.0", (), {"twinmod-0.1.0.tar.gz": b"1"})


def test_a_list_has_every_artifact_and_what_a_kernel_cannot_have(tree: KernelTree) -> None:
    kernel = release_index.plan_kernel(tree, {"rust": "kernel 6.12 was built without Rust"})
    index = release_index.plan_index(WHAT, "", (kernel,), {"twinmod-0.1.0.tar.gz": b"1"})
    first, last = release_index.render_list(index).splitlines()
    assert first.split() == ["twinmod-0.1.0.tar.gz", "1", "B"]
    assert last == "absent: the rust module: kernel 6.12 was built without Rust"


def test_provenance_names_what_came_out_and_what_went_in() -> None:
    dependency = provenance.Dependency(uri="x")
    statement = provenance.plan_statement(WHAT, "", (dependency,), ("make",), {"a": b"1"})
    content = provenance.encode(statement)
    assert provenance.parse_statement(content) == statement
    found = json.loads(content)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["subject"] == [
        {"name": "a", "digest": {"sha256": release_index.read_digest(b"1")}}
    ]
    inputs = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert inputs[0]["digest"] == {"gitCommit": COMMIT}
    assert inputs[1] == {"uri": "x"}


PASSED = Totals(passed=7, failed=0, skipped=0)


@pytest.fixture
def tested(test_report: TestReport) -> TestReport:
    """A run of the matrix in which all passed."""
    cells = tuple(structs.replace(cell, outcome="passed") for cell in test_report.cells)
    return structs.replace(test_report, cells=cells, totals=PASSED)


def fail_differential(tested: TestReport) -> TestReport:
    assert tested.differential is not None
    failed = structs.replace(tested.differential, outcome="failed")
    return structs.replace(tested, differential=failed)


def crash_cell(tested: TestReport) -> TestReport:
    cells = tuple(structs.replace(cell, outcome="crashed") for cell in tested.cells)
    return structs.replace(tested, cells=cells)


def test_a_whole_run_that_passed_on_the_same_file_vouches_for_it(
    product: Product, tested: TestReport
) -> None:
    assert release_index.find_test_flaw(tested, (product,)) == ""


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda tested: structs.replace(tested, modules=()), "sha256 none"),
        (lambda tested: structs.replace(tested, narrowed="-k R1"), "a part of the matrix"),
        (
            lambda tested: structs.replace(tested, totals=structs.replace(PASSED, failed=1)),
            "1 failed",
        ),
        (
            lambda tested: structs.replace(tested, totals=structs.replace(PASSED, passed=0)),
            "0 tests passed",
        ),
        (fail_differential, "the differential: failed"),
        (crash_cell, "mdriver_c/c"),
    ],
)
def test_a_run_that_is_not_whole_or_not_of_this_file_vouches_for_nothing(
    product: Product, tested: TestReport, change: Callable[[TestReport], TestReport], flaw: str
) -> None:
    assert flaw in release_index.find_test_flaw(change(tested), (product,))


def test_a_report_of_the_matrix_is_used_only_where_it_vouches_for_the_modules(
    product: Product, tested: TestReport, tmp_path: Path
) -> None:
    several = TestsReport(kernels=(), runs=(tested,), totals=tested.totals)
    other = structs.replace(tested, modules=())
    for name, document in (("other", other), ("own", tested), ("several", several)):
        documents.write(tmp_path / name / "report.json", document)
    folders = tuple(tmp_path / name for name in ("none", "several", "other", "own"))
    assert run.find_tested((product,), folders) == tmp_path / "own"
    assert run.find_tested((product,), folders[:3]) is None


@pytest.mark.parametrize(
    "damage", [{"cells": 3}, {"modules": [{}]}, {"totals": {"passed": 7}}, {"totales": 1}]
)
def test_a_damaged_report_vouches_for_nothing(
    damage: dict[str, object], product: Product, tested: TestReport, tmp_path: Path
) -> None:
    document = {**documents.to_json(tested), **damage}
    (tmp_path / "report.json").write_text(json.dumps(document))
    assert run.find_tested((product,), (tmp_path,)) is None


def test_who_publishes_is_the_projects_first_maintainer_with_an_address(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n')
    assert run.read_maintainer(tmp_path) == ""
    path.write_text(
        '[project]\nmaintainers = [{ name = "A" }, { name = "B", email = "b@example.org" }]\n'
    )
    assert run.read_maintainer(tmp_path) == "B <b@example.org>"


def test_another_person_has_other_rights_zone_and_jobs_and_leaves_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TWINMOD_JOBS", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    before = dict(os.environ)
    with run.pretend_other_person():
        (tmp_path / "theirs").touch()
        assert sandbox.find_jobs() == 1
        assert time.strftime("%z") == "+1400"
    (tmp_path / "ours").touch()
    assert (tmp_path / "theirs").stat().st_mode & 0o077 == 0
    assert (tmp_path / "ours").stat().st_mode & 0o044
    assert dict(os.environ) == before
    assert time.strftime("%z") == "+0000"


def test_a_signed_module_is_the_tested_one_with_something_behind_it(product: Product) -> None:
    content = b"x" * 10
    tested = Product(
        **{name: getattr(product, name) for name in product.__slots__}
        | {"size_bytes": 10, "sha256": release_index.read_digest(content)}
    )
    found = release_index.plan_signed(tested, content + b"signature")
    assert found.wraps.sha256 == tested.sha256
    assert found.sha256 == release_index.read_digest(content + b"signature")
    with pytest.raises(ValueError, match="not the tested one"):
        release_index.plan_signed(tested, b"y" * 10 + b"signature")


def test_documents_are_written_alike() -> None:
    assert json.loads(release_index.render_json({"b": 1, "a": [2]})) == {"b": 1, "a": [2]}
    assert release_index.render_json({}).endswith(b"\n")


def test_a_key_for_modules_is_refused_early_where_a_kernel_checks_no_signature(
    tree: KernelTree, tmp_path: Path
) -> None:
    (tmp_path / ".config").write_text("CONFIG_MODULES=y\n")
    prepared = Prepared(
        chroot=tree.compilers,
        tree=replace(tree, build_dir=tmp_path),
        site_dir=tmp_path,
        crates_dir=tmp_path,
    )
    config = project_config.read_config(CHECKOUT, tmp_path)
    made = run.Made(files={}, kernels=(), built=((config, prepared, ()),))
    run.require_signable(signing.Keys(), made)
    with pytest.raises(ConfigError, match="checks no signature"):
        run.require_signable(signing.Keys(module_key=tmp_path / "key"), made)

# SPDX-License-Identifier: GPL-2.0-only
"""What a stranger finds who checks a release: nothing, or what was tampered with, by name."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from twinmod import dkms_run, release, verify, verify_run
from twinmod.errors import ConfigError
from twinmod.proving import ModuleState
from twinmod.specs import Release
from twinmod.terminal import TerminalProgress
from twinmod.verify import Step

COMMIT = "0123456789abcdef0123456789abcdef01234567"

WHAT = Release(version="0.1.0", commit=COMMIT, epoch=7, source_dir=Path("/source"))


def make_release(**changed: bytes) -> dict[str, bytes]:
    """Return the files of a small release; changed: content after it was made, by file."""
    artifacts = {"twinmod-0.1.0.tar.gz": b"source", "twinmod-0.1.0-py3-none-any.whl": b"wheel"}
    provenance = release.plan_provenance(WHAT, "", (), (), artifacts)
    artifacts[release.PROVENANCE] = release.render_json(provenance)
    index = release.plan_index(WHAT, "", (), artifacts)
    files = {**artifacts, release.INDEX: release.render_json(index)}
    evidence = {"report.json": b"{}"}
    seen = {**evidence, f"../{release.INDEX}": files[release.INDEX]}
    files[release.SUMS] = release.render_sums(files).encode()
    files["evidence/report.json"] = b"{}"
    files["evidence/SHA256SUMS"] = release.render_sums(seen).encode()
    return {**files, **changed}


def test_a_release_as_it_was_made_has_nothing_wrong() -> None:
    files = make_release()
    assert verify.find_wrong_sums(files) == ()
    assert verify.find_wrong_documents(files) == ()


def test_what_signs_the_sums_needs_no_sum() -> None:
    assert verify.find_wrong_sums({**make_release(), "SHA256SUMS.sig": b"s"}) == ()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("twinmod-0.1.0-py3-none-any.whl", b"tampered"),
        ("release.json", b"{}"),
        ("evidence/report.json", b"{ }"),
        ("new.deb", b""),
    ],
)
def test_a_file_that_was_tampered_with_is_named(path: str, content: bytes) -> None:
    wrong = verify.find_wrong_sums({**make_release(), path: content})
    assert any(path.removeprefix("evidence/") in line for line in wrong)


def test_sums_that_are_gone_or_no_sums_are_told() -> None:
    files = make_release()
    del files[release.SUMS]
    assert verify.find_wrong_sums(files) == ("SHA256SUMS is missing",)
    (line,) = verify.find_wrong_sums(make_release(SHA256SUMS=b"none\n"))
    assert line.startswith("SHA256SUMS cannot be read")


def test_an_index_that_fits_new_sums_still_does_not_fit_a_changed_file() -> None:
    files = make_release()
    files["twinmod-0.1.0.tar.gz"] = b"tampered"
    own, _ = verify.split_files(files)
    files[release.SUMS] = release.render_sums(own).encode()
    wrong = verify.find_wrong_documents(files)
    assert [line.partition(" was")[0] for line in wrong] == [
        "release.json: twinmod-0.1.0.tar.gz", "provenance.intoto.json: twinmod-0.1.0.tar.gz",
    ]  # fmt: skip


def test_provenance_of_another_commit_is_told() -> None:
    files = make_release()
    document: dict[str, Any] = json.loads(files[release.PROVENANCE])
    document["predicate"]["buildDefinition"]["externalParameters"]["commit"] = "f" * 40
    files[release.PROVENANCE] = release.render_json(document)
    assert any("commit ffff" in line for line in verify.find_wrong_documents(files))


@pytest.mark.parametrize(
    "files", [{}, {"release.json": b"{"}, {"release.json": b'{"schema": "x"}'}]
)
def test_a_folder_without_a_release_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(ConfigError, match="has no release"):
        verify.parse_index(files)


@pytest.mark.parametrize("key", ["version", "commit", "epoch", "kernels", "artifacts"])
@pytest.mark.parametrize("wrong", [..., None, [{}], {}], ids=repr)
def test_an_index_without_what_a_check_needs_is_refused(key: str, wrong: object) -> None:
    index = {
        "schema": release.SCHEMA,
        "version": "0.1.0",
        "commit": COMMIT,
        "epoch": 7,
        "kernels": [{"release": "7.3.4"}],
        "artifacts": [{"path": "a", "sha256": "b"}],
    }
    assert verify.parse_index({release.INDEX: json.dumps(index).encode()}) == index
    damaged = {
        name: wrong if name == key else value
        for name, value in index.items()
        if name != key or wrong is not ...
    }
    with pytest.raises(ConfigError, match="has no release"):
        verify.parse_index({release.INDEX: json.dumps(damaged).encode()})


def test_one_step_that_failed_fails_a_verification_and_one_that_is_absent_does_not() -> None:
    index = {"version": "0.1.0", "commit": COMMIT}
    step = Step(name="s", where=verify.HERE, outcome=verify.ABSENT, seconds=1.0, detail="d")
    passed = Step(name="p", where=verify.VM, outcome=verify.PASSED, seconds=1.0, detail="d")
    failed = Step(name="f", where=verify.VM, outcome=verify.FAILED, seconds=1.0, detail="d")
    assert verify.plan_report(index, (step, passed))["passed"]
    document = verify.plan_report(index, (step, passed, failed))
    assert not document["passed"]
    assert verify.render_report(document).endswith("1 passed, 1 failed, 1 absent, in 3 s")


@pytest.mark.parametrize(
    "error", [KeyError("subject"), ValueError("no JSON"), StopIteration(), tarfile.TarError("bad")]
)
def test_a_document_that_is_not_what_it_should_be_fails_its_step_and_no_other(
    error: Exception,
) -> None:
    def act() -> str:
        raise error

    steps = verify_run.Steps(progress=TerminalProgress())
    steps.take("broken", verify.HERE, act)
    steps.take("next", verify.HERE, lambda: "seen")
    assert [step.outcome for step in steps.done] == [verify.FAILED, verify.PASSED]
    assert type(error).__name__ in steps.done[0].detail


def test_a_release_without_provenance_is_told_and_ends_in_no_trace() -> None:
    files = make_release()
    del files[release.PROVENANCE]
    steps = verify_run.Steps(progress=TerminalProgress())
    steps.take("documents", verify.HERE, lambda: verify_run.check_documents(files))
    assert steps.done[0].outcome == verify.FAILED


# -- the life of a machine --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "later"), [("0.1.0", "0.1.1"), ("0.1.9+g1a2b3c4d5e6f.dirty", "0.1.10")]
)
def test_the_next_version_comes_after(version: str, later: str) -> None:
    assert dkms_run.plan_next_version(version) == later


def state(name: str, **changed: str) -> ModuleState:
    fields = {"version": "0.1.0", "release": "7.3.4", "state": "installed", **changed}
    return ModuleState(name=name, **fields)


MODULES = ("mdriver-c", "mdriver-rust")


@pytest.mark.parametrize(
    ("states", "wrong"),
    [
        ((state("mdriver-c"), state("mdriver-rust")), ()),
        ((state("mdriver-c"),), ("mdriver-rust is missing",)),
        (
            (state("mdriver-c"), state("mdriver-rust", state="built")),
            ("mdriver-rust is 0.1.0 built",),
        ),
        (
            (state("mdriver-c", version="0.0.9"), state("mdriver-rust")),
            ("mdriver-c is 0.0.9 installed",),
        ),
        ((state("mdriver-c", release="6.12"), state("mdriver-rust")), ("mdriver-c is missing",)),
    ],
)
def test_a_module_that_is_not_installed_in_its_version_for_the_kernel_is_named(
    states: tuple[ModuleState, ...], wrong: tuple[str, ...]
) -> None:
    found = dkms_run.find_states(states, "7.3.4")
    assert dkms_run.find_wrong_states(found, MODULES, "0.1.0") == wrong

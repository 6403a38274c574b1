# SPDX-License-Identifier: GPL-2.0-only
"""What a stranger finds who checks a release: nothing, or what was tampered with, by name."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from twinmod.base import archives, documents, zstd
from twinmod.base.archives import File
from twinmod.base.progress import TerminalProgress
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import ConfigError, MissingToolError, NotPassedError, TwinmodError
from twinmod.guest.protocol import Outcome
from twinmod.kernels import roots
from twinmod.kernels.model import KernelTree
from twinmod.project import config as project_config
from twinmod.project.config import Config
from twinmod.release import dkms, provenance, verify, verify_run
from twinmod.release import index as release_index
from twinmod.release.model import Release
from twinmod.release.root import ModuleState
from twinmod.release.verify import Step
from twinmod.workspace import Prepared, Workspace

MakeElf = Callable[[dict[str, str], tuple[str, ...], tuple[str, ...]], bytes]

COMMIT = "0123456789abcdef0123456789abcdef01234567"

WHAT = Release(version="0.1.0", commit=COMMIT, epoch=7, source_dir=Path("/source"))


def make_release(**changed: bytes) -> dict[str, bytes]:
    """Return the files of a small release; changed: content after it was made, by file."""
    artifacts = {"twinmod-0.1.0.tar.gz": b"source", "twinmod-0.1.0-py3-none-any.whl": b"wheel"}
    statement = provenance.plan_statement(WHAT, "", (), (), artifacts)
    artifacts[release_index.PROVENANCE] = provenance.encode(statement)
    index = release_index.plan_index(WHAT, "", (), artifacts)
    files = {**artifacts, release_index.INDEX: documents.encode(index)}
    evidence = {"report.json": b"{}"}
    seen = {**evidence, f"../{release_index.INDEX}": files[release_index.INDEX]}
    files[release_index.SUMS] = release_index.render_sums(files).encode()
    files["evidence/report.json"] = b"{}"
    files["evidence/SHA256SUMS"] = release_index.render_sums(seen).encode()
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
    del files[release_index.SUMS]
    assert verify.find_wrong_sums(files) == ("SHA256SUMS is missing",)
    (line,) = verify.find_wrong_sums(make_release(SHA256SUMS=b"none\n"))
    assert line.startswith("SHA256SUMS cannot be read")


def test_an_index_that_fits_new_sums_still_does_not_fit_a_changed_file() -> None:
    files = make_release()
    files["twinmod-0.1.0.tar.gz"] = b"tampered"
    own, _ = verify.split_files(files)
    files[release_index.SUMS] = release_index.render_sums(own).encode()
    wrong = verify.find_wrong_documents(files)
    assert [line.partition(" was")[0] for line in wrong] == [
        "release.json: twinmod-0.1.0.tar.gz",
        "provenance.intoto.json: twinmod-0.1.0.tar.gz",
    ]


def test_provenance_of_another_commit_is_told() -> None:
    files = make_release()
    document: dict[str, Any] = json.loads(files[release_index.PROVENANCE])
    document["predicate"]["buildDefinition"]["externalParameters"]["commit"] = "f" * 40
    files[release_index.PROVENANCE] = release_index.render_json(document)
    assert any("commit ffff" in line for line in verify.find_wrong_documents(files))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is missing"),
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "missing required field `_type`"),
        (b'{"_type": 1}', "$._type"),
        (b'{"_type": "x", "subject": {}}', "$.subject"),
        (b"[" * 100000, "cannot be read"),
    ],
)
def test_provenance_that_is_gone_or_none_is_told(content: bytes | None, told: str) -> None:
    files = make_release()
    del files[release_index.PROVENANCE]
    if content is not None:
        files[release_index.PROVENANCE] = content
    lines = verify.find_wrong_documents(files)
    (line,) = [line for line in lines if line.startswith("provenance.intoto.json ")]
    assert told in line


@pytest.mark.parametrize(
    "files", [{}, {"release.json": b"{"}, {"release.json": b'{"schema": "x"}'}]
)
def test_a_folder_without_a_release_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(ConfigError, match="has no release"):
        verify.parse_index(files)


@pytest.mark.parametrize("key", ["version", "commit", "epoch", "kernels", "artifacts"])
@pytest.mark.parametrize("wrong", [..., None, [{}], {}], ids=repr)
def test_an_index_without_what_a_check_needs_is_refused(key: str, wrong: object) -> None:
    files = make_release()
    index = json.loads(files[release_index.INDEX])
    assert documents.to_json(verify.parse_index(files)) == index
    damaged = {
        name: wrong if name == key else value
        for name, value in index.items()
        if name != key or wrong is not ...
    }
    with pytest.raises(ConfigError, match="has no release"):
        verify.parse_index({release_index.INDEX: json.dumps(damaged).encode()})


def test_one_step_that_failed_fails_a_verification_and_one_that_is_absent_does_not() -> None:
    index = release_index.plan_index(WHAT, "", (), {})
    step = Step(
        name="s", where=verify.HERE, outcome=verify.StepOutcome.ABSENT, seconds=1.0, detail="d"
    )
    passed = Step(
        name="p", where=verify.VM, outcome=verify.StepOutcome.PASSED, seconds=1.0, detail="d"
    )
    failed = Step(
        name="f", where=verify.VM, outcome=verify.StepOutcome.FAILED, seconds=1.0, detail="d"
    )
    assert verify.plan_report(index, (step, passed)).passed
    document = verify.plan_report(index, (step, passed, failed))
    assert not document.passed
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
    assert [step.outcome for step in steps.done] == [
        verify.StepOutcome.FAILED,
        verify.StepOutcome.PASSED,
    ]
    assert type(error).__name__ in steps.done[0].detail


def test_a_release_without_provenance_is_told_and_ends_in_no_trace() -> None:
    files = make_release()
    del files[release_index.PROVENANCE]
    steps = verify_run.Steps(progress=TerminalProgress())
    steps.take("documents", verify.HERE, lambda: verify_run.check_documents(files))
    assert steps.done[0].outcome == verify.StepOutcome.FAILED


# -- which kernels a release is tried on ---------------------------------------------------


class Kernels:
    """Kernels that are there, or can be had, by name and release: "" for one that cannot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tree: KernelTree) -> None:
        self.ready: dict[str, str] = {}
        self.offered: dict[str, str] = {}
        self.set_up: list[str] = []
        self._tree = tree
        monkeypatch.setattr(Workspace, "look_for_tree", lambda one: self._look(one.config))
        monkeypatch.setattr(Workspace, "setup", lambda one: self._set_up(one.config))
        monkeypatch.setattr(roots, "find_chroot", lambda spec: None)

    def _look(self, config: Config) -> tuple[KernelTree | None, TwinmodError]:
        release = self.ready.get(config.kernel.name)
        found = replace(self._tree, release=release) if release else None
        return found, MissingToolError("not set up")

    def _set_up(self, config: Config) -> Prepared:
        name = config.kernel.name
        self.set_up.append(name)
        release = {**self.offered, **self.ready}.get(name, "")
        if not release:
            raise MissingToolError(f"{name} is not served")
        tree = replace(self._tree, release=release)
        return Prepared(
            chroot=tree.compilers, tree=tree, site_dir=Path("/site"), crates_dir=Path("/crates")
        )


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch, tree: KernelTree) -> Kernels:
    return Kernels(monkeypatch, tree)


SUITE = {"root": "one", "suite": "trixie-backports", "flavour": "amd64"}
OWN = {"root": "one", "source": "stock"}


def make_config(document: dict[str, Any], **tables: dict[str, Any]) -> Config:
    """Return a project's configuration with these kernels beside the one that is checked."""
    return project_config.make_config(
        document | {"kernel": "stock", "kernels": {"stock": SUITE, **tables}}, Path("/project")
    )


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    # A project's kernels are those that a test says.
    monkeypatch.setattr(project_config, "read_builtin", dict)
    return {
        "roots": {"one": {"suite": "trixie"}},
        "drivers": {"m": {"modules": {"c": {"name": "m_c", "sources": "c"}}}},
    }


def find_other(config: Config, release: str = "7.3.4") -> str:
    workspace = Workspace(config=config, progress=TerminalProgress())
    found = verify_run.find_other_kernel(workspace, release)
    return found[0].config.kernel.name if found else ""


def test_another_kernel_is_one_that_is_there_of_another_release(
    kernels: Kernels, document: dict[str, Any]
) -> None:
    config = make_config(document, again=SUITE, old=SUITE | {"suite": "bookworm"}, debug=OWN)
    kernels.ready = {"stock": "7.3.4", "again": "7.3.4", "debug": "7.3.4-debug"}
    kernels.offered = {"old": "6.1"}
    assert find_other(config) == "debug"
    assert kernels.set_up == ["debug"]


def test_another_kernel_is_set_up_and_one_of_another_suite_first(
    kernels: Kernels, document: dict[str, Any]
) -> None:
    config = make_config(
        document,
        series=SUITE,
        gone=SUITE | {"suite": "sid"},
        old=SUITE | {"suite": "bookworm"},
        debug=OWN,
    )
    kernels.offered = {"series": "7.2", "old": "6.1", "debug": "7.3.4-debug"}
    assert find_other(config) == "old"
    assert kernels.set_up == ["gone", "old"]


def test_a_kernel_that_turns_out_to_be_of_the_same_release_is_no_other(
    kernels: Kernels, document: dict[str, Any]
) -> None:
    kernels.offered = {"again": "7.3.4", "series": "7.2"}
    assert find_other(make_config(document, again=SUITE, series=SUITE)) == "series"
    kernels.offered["series"] = "7.3.4"
    assert find_other(make_config(document, again=SUITE, series=SUITE)) == ""


def test_a_kernel_that_could_not_be_had_is_an_error_and_none_is_not(
    kernels: Kernels, document: dict[str, Any]
) -> None:
    with pytest.raises(MissingToolError, match="gone is not served"):
        find_other(make_config(document, gone=SUITE))
    # It would have to be built.
    assert find_other(make_config(document, debug=OWN)) == ""
    assert find_other(make_config(document)) == ""


FORCED = OWN | {"options": ["MODULE_SIG", "MODULE_SIG_FORCE"]}


@pytest.mark.parametrize(
    ("tables", "name"),
    [
        ({}, None),
        ({"debug": OWN}, None),
        # Nobody has the key of a stock kernel.
        ({"locked": SUITE | {"command-line": ["module.sig_enforce=1"]}}, None),
        ({"debug": OWN, "forced": FORCED}, "forced"),
        (
            {"mine": OWN | {"options": ["MODULE_SIG"], "command-line": ["module.sig_enforce"]}},
            "mine",
        ),
        (
            {
                "mine": OWN
                | {
                    "options": ["SECURITY", "SECURITY_LOCKDOWN_LSM"],
                    "command-line": ["lockdown=integrity"],
                }
            },
            "mine",
        ),
    ],
)
def test_a_kernel_that_takes_signed_modules_alone_is_found_by_what_it_is(
    tables: dict[str, dict[str, Any]], name: str | None, document: dict[str, Any]
) -> None:
    found = verify_run.find_enforcing(make_config(document, **tables))
    assert (found.kernel.name if found else None) == name


def test_a_persons_own_tree_that_takes_signed_modules_alone_is_found(
    document: dict[str, Any], tmp_path: Path
) -> None:
    config = make_config(document, mine={"root": "one", "tree": str(tmp_path)})
    assert verify_run.find_enforcing(config) is None
    (tmp_path / ".config").write_text("CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_FORCE=y\n")
    found = verify_run.find_enforcing(config)
    assert found is not None
    assert found.kernel.name == "mine"


def test_what_a_project_has_no_kernel_for_is_absent_and_says_so(
    kernels: Kernels, document: dict[str, Any], tree: KernelTree, tmp_path: Path
) -> None:
    workspace = Workspace(config=make_config(document), progress=TerminalProgress())
    prepared = Prepared(chroot=tree.compilers, tree=tree, site_dir=tmp_path, crates_dir=tmp_path)
    subject = verify_run.Subject(workspace=workspace, prepared=prepared, products=())
    steps = verify_run.Steps(progress=workspace.progress)
    steps.take("other", verify.VM, lambda: verify_run.check_other_kernel(subject, tmp_path))
    steps.take("enforcing", verify.VM, lambda: verify_run.check_enforcing(workspace, tmp_path))
    assert [step.outcome for step in steps.done] == [
        verify.StepOutcome.ABSENT,
        verify.StepOutcome.ABSENT,
    ]
    assert "is of another release" in steps.done[0].detail
    assert "takes signed modules alone" in steps.done[1].detail
    index = release_index.plan_index(WHAT, "", (), {})
    assert verify.plan_report(index, steps.done).passed


@pytest.mark.parametrize("said", verify_run.NO_SIGNATURE)
def test_a_refusal_is_one_whichever_way_a_kernel_wants_signatures(said: str) -> None:
    cell = Cell(module="m", label="c", tester="c")
    problems = (f"m did not load: EPERM; the kernel says: a; {said}; b",)
    results = {"m": CellResult(cell=cell, outcome=Outcome.FAILED, problems=problems)}
    assert verify_run.require_refusal(results, verify_run.NO_SIGNATURE) == said
    with pytest.raises(NotPassedError, match="was not refused"):
        verify_run.require_refusal(results, verify_run.OTHER_RELEASE)


# -- the version of its modules ---------------------------------------------------------------


def pack(content: bytes, module_version: str) -> dict[str, bytes]:
    """Return a release with one module, whose description says a version."""
    modinfo = release_index.Modinfo(
        name="mdriver_c",
        language="c",
        version="0.1.0",
        module_version=module_version,
        license="GPL",
        vermagic="",
        srcversion="",
        parameters=(),
        size_bytes=len(content),
        sha256=release_index.read_digest(content),
        undefined_symbols=(),
        compilers=release_index.ModuleCompilers(c=(), rustc=""),
        kernel=release_index.ModinfoKernel(release=TREE, version="", suite=""),
        commit=COMMIT,
    )
    tar = archives.plan_tar(
        (
            File(path="lib/mdriver_c.ko", content=content),
            File(path="doc/modinfo.json", content=documents.encode(modinfo)),
        ),
        7,
    )
    return make_release() | {f"mdriver-c-0.1.0-{TREE}-x86_64.tar.zst": tar}


TREE = "7.3.4+deb13-amd64"


@pytest.fixture
def prepared(tree: KernelTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """What was set up, with a chroot in which nothing is compressed."""
    monkeypatch.setattr(zstd, "decompress_zstd", lambda root, data: data)
    return Prepared(chroot=tree.compilers, tree=tree, site_dir=tmp_path, crates_dir=tmp_path)


@pytest.mark.parametrize(("said", "shown"), [("0.2.0", "version 0.2.0"), ("", "none")])
def test_a_prebuilt_module_of_another_version_is_refused(
    said: str, shown: str, make_elf: MakeElf, prepared: Prepared, tmp_path: Path
) -> None:
    content = make_elf({"version": said} if said else {"license": "GPL"}, (), ())
    with pytest.raises(ConfigError, match=rf"^the release is 0\.1\.0, and mdriver_c says {shown}$"):
        verify_run.unpack_modules(pack(content, "0.1.0"), {"mdriver_c": "c"}, prepared, tmp_path)


# -- the life of a machine --------------------------------------------------------------------


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
    found = dkms.find_states(states, "7.3.4")
    assert dkms.find_wrong_states(found, MODULES, "0.1.0") == wrong

# SPDX-License-Identifier: GPL-2.0-only
"""The zoo's entries are whole, and what stopped an attempt is read from what really happened."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from twinmod.base import documents
from twinmod.base.progress import Progress
from twinmod.cells.model import CellResult, TestResult
from twinmod.errors import BuildError, ConfigError
from twinmod.experiments import engine, variants, zoo, zoo_run
from twinmod.experiments.engine import Bench, Builds, Built, Ran
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Outcome
from twinmod.kernels.model import KernelTree
from twinmod.project import config as project_config
from twinmod.project import rules
from twinmod.project.config import Config
from twinmod.project.model import Language
from twinmod.workspace import Prepared, Workspace

ROOT = Path(__file__).resolve().parents[2]
CONFIG = project_config.read_config(ROOT)
ENTRIES = zoo_run.read_entries(CONFIG)
ATTEMPTS = zoo.select_attempts(ENTRIES, "", (Language.C, Language.RUST))
RULES = tuple(number for number, _ in rules.parse_rules((ROOT / "DEVICE.md").read_text()))

TEXT = """
kind = "a bug"
why = "it was late"
reference = "CVE-2000-0001"
kernel = "kasan"
[c]
stopped_by = "sanitizer"
by = "kasan"
[rust]
stopped_by = "compile"
by = "E0382"
"""
ENTRY = zoo.parse_entry("bug", TEXT.encode())
IN_C, IN_RUST = ENTRY.attempts
CELL = zoo.plan_cell(IN_C, IN_C.stem)

WORDS = """make: Entering directory
error[E0382]: use of moved value: `buffer`
  --> zoo.rs:4:9
error: aborting due to 1 previous error
"""


def ran(outcome: str = "passed", **values: object) -> CellResult:
    """Return a cell with one test of R4 that ended in some way."""
    test = TestResult(
        id="test_x", rules=("R4",), outcome=Outcome(outcome), duration_s=0.1, message="it said no"
    )
    made = CellResult(cell=CELL, outcome=Outcome(outcome), tests=(test,))
    return replace(made, **values)  # type: ignore[arg-type]


def complain(kind: str) -> CellResult:
    """Return a cell that the kernel complained in."""
    fault = KernelFault(kind=kind, lines=(f"BUG: {kind}",))
    return ran("crashed", kernel_faults=(fault,))


def expecting(stopped_by: str, by: str = "", because: str = "") -> zoo.Attempt:
    """Return an attempt with another expectation."""
    expected = zoo.Expectation(stopped_by=zoo.Stop(stopped_by), by=by, because=because)
    return replace(IN_C, expected=expected)


# -- the entries ------------------------------------------------------------------------------


def test_the_zoo_has_every_bug_of_the_report_and_more() -> None:
    assert len(ENTRIES) >= 19
    assert {"no_lock", "shared_descriptor"} <= {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_has_its_files_and_no_others(entry: zoo.Entry) -> None:
    wanted = {"zoo.toml", f"test_{entry.name}.py", *(a.file_name for a in entry.attempts)}
    found = {path.name for path in (ROOT / "zoo" / entry.name).iterdir() if path.is_file()}
    assert found == wanted


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_cites_a_cve_or_a_commit(entry: zoo.Entry) -> None:
    assert re.fullmatch(r"CVE-\d{4}-\d{4,}|[0-9a-f]{12} \(.+\)", entry.page.reference)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_an_attempt_names_itself_as_its_file_does(attempt: zoo.Attempt) -> None:
    text = (ROOT / "zoo" / attempt.entry / attempt.file_name).read_text()
    assert text.startswith("// SPDX-License-Identifier: GPL-2.0-only\n")
    if attempt.space == "kernel":
        name = "KBUILD_MODNAME" if attempt.language == "c" else f'c"{attempt.stem}"'
        assert name in text


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_test_names_rules_of_the_contract_among_them_the_expected_one(entry: zoo.Entry) -> None:
    text = (ROOT / f"zoo/{entry.name}/test_{entry.name}.py").read_text()
    named = set(re.findall(r'"(R\d+)"', text))
    expected = {a.expected.by for a in entry.attempts if a.expected.stopped_by == "rule"}
    assert named
    assert expected <= named <= set(RULES)


def test_bugs_that_rust_does_not_stop_are_among_them() -> None:
    by = {attempt.expected.stopped_by for attempt in ATTEMPTS if attempt.language == "rust"}
    assert {"compile", "rule", "sanitizer", "crash"} <= by


def test_an_entry_without_a_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "zoo/bug"
    folder.mkdir(parents=True)
    (folder / "zoo.toml").write_text(TEXT)
    (folder / "zoo_bug_c.c").touch()
    config = replace_root(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks test_bug.py, zoo_bug_rust.rs"):
        zoo_run.read_entries(config)


def test_a_project_without_a_zoo_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the zoo is empty"):
        zoo_run.read_entries(replace_root(tmp_path))


def replace_root(root: Path) -> Config:
    """Return the configuration of a checkout elsewhere."""
    return msgspec.structs.replace(CONFIG, root_dir=root)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('kind = "a bug"', 'kind = "a bug"\ncolour = "red"', "unknown field `colour`"),
        ('why = "it was late"', "", "missing required field `why`"),
        ('"kasan"\n[c]', '"kmsan"\n[c]', "Invalid enum value"),
        ('by = "kasan"', "", "lacks `by`"),
        ('"sanitizer"', '"nowhere"', "lacks `because`"),
        ('"sanitizer"', '"nowhere"\nbecause = "it is late"', "has `by` other than 'no bug'"),
        ("[rust]", '[more.c_again]\nstopped_by = "crash"\nby = "bug"\n[rust]', "not the name"),
        ('"sanitizer"', '"not run"', "stopped by 'not run' and that is not a stop"),
        ('"sanitizer"', '"kasan"', "Invalid enum value 'kasan'"),
        ("[rust]", "[ruby]", "unknown field `ruby`"),
        ("[c]", "[c", "not valid"),
    ],
)
def test_a_wrong_entry_is_refused_and_says_why(old: str, new: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        zoo.parse_entry("bug", TEXT.replace(old, new, 1).encode())


# -- plans ------------------------------------------------------------------------------------


def test_both_languages_are_built_as_the_twins_are() -> None:
    in_c, in_rust = zoo.plan_module(IN_C), zoo.plan_module(IN_RUST)
    assert (in_c.name, in_c.in_tree) == ("zoo_bug_c", "")
    assert (in_rust.name, in_rust.in_tree) == ("zoo_bug_rust", "samples/rust/zoo_bug_rust")


def test_every_cell_has_a_name_of_its_own() -> None:
    names = [zoo.plan_cell(attempt, "mdriver_c").name for attempt in ATTEMPTS]
    assert len(set(names)) == len(names)


def test_a_program_runs_on_a_driver_without_the_bug() -> None:
    cell = zoo.plan_cell(replace(IN_C, space=zoo.Space.USER), "mdriver_c")
    assert (cell.module, cell.tester) == ("mdriver_c", "c")


def test_what_ends_a_vm_comes_last() -> None:
    quiet, crash = expecting("rule", "R4"), expecting("crash", "bug")
    assert variants.plan_order((crash, IN_C, quiet)) == (quiet, crash, IN_C)


def test_a_selection_of_nothing_is_refused() -> None:
    assert zoo.select_attempts((ENTRY,), "bug/rust", (Language.RUST,)) == (IN_RUST,)
    with pytest.raises(ConfigError, match="leaves nothing"):
        zoo.select_attempts((ENTRY,), "no such bug", (Language.C,))


# -- verdicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", zoo.SANITIZERS)
def test_what_a_kernel_was_built_to_look_for_is_a_sanitizers(kind: str) -> None:
    verdict = zoo.judge(IN_C, complain(kind))
    assert (verdict.stopped_by, verdict.by) == ("sanitizer", kind)
    assert verdict.evidence == (f"BUG: {kind}",)


@pytest.mark.parametrize("kind", ["oops", "panic", "bug", "hung task", "soft lockup", "warning"])
def test_any_other_fault_is_a_crash(kind: str) -> None:
    verdict = zoo.judge(IN_C, complain(kind))
    assert (verdict.stopped_by, verdict.by) == ("crash", kind)


@pytest.mark.parametrize("outcome", ["timeout", "lost"])
def test_a_vm_that_is_gone_without_a_word_is_a_crash(outcome: str) -> None:
    verdict = zoo.judge(IN_C, ran(outcome, problems=("no step within 40 s",)))
    assert (verdict.stopped_by, verdict.by) == ("crash", outcome)
    assert verdict.evidence == ("no step within 40 s",)


def test_a_test_that_fails_names_its_rule() -> None:
    verdict = zoo.judge(IN_C, ran("failed"))
    assert (verdict.stopped_by, verdict.by) == ("rule", "R4")
    assert verdict.evidence == ("it said no",)


def test_what_nothing_stopped_is_nowhere() -> None:
    assert zoo.judge(IN_C, ran()).stopped_by == "nowhere"


def test_no_bug_is_the_word_of_the_entry_and_says_why() -> None:
    verdict = zoo.judge(expecting("nowhere", "no bug", because="it is freed"), ran())
    assert (verdict.stopped_by, verdict.by) == ("nowhere", "no bug")
    assert verdict.evidence == ("it is freed",)
    assert verdict.passed


@pytest.mark.parametrize(
    "result",
    [
        ran(problems=("did not load: no such file",)),
        ran("skipped"),
        CellResult(cell=CELL, outcome=Outcome.PASSED),
    ],
)
def test_what_did_not_run_is_never_as_expected(result: CellResult) -> None:
    for attempt in (IN_C, expecting("nowhere", because="x"), expecting("nowhere", "no bug", "x")):
        verdict = zoo.judge(attempt, result)
        assert verdict.stopped_by == "not run"
        assert not verdict.passed


def test_a_refusal_names_the_compilers_error_and_quotes_it() -> None:
    verdict = zoo.judge_refusal(IN_RUST, WORDS)
    assert (verdict.stopped_by, verdict.by) == ("compile", "E0382")
    assert verdict.evidence[0] == "error[E0382]: use of moved value: `buffer`"
    assert verdict.passed


@pytest.mark.parametrize(
    "attempt",
    [expecting("rule", "R4"), expecting("sanitizer", "kcsan"), expecting("crash", "kasan")],
)
def test_another_expectation_is_not_met(attempt: zoo.Attempt) -> None:
    assert zoo.judge(IN_C, complain("kasan")).passed
    assert not zoo.judge(attempt, complain("kasan")).passed


# -- the report -------------------------------------------------------------------------------


def plan_report(*verdicts: zoo.Verdict) -> zoo.ZooReport:
    """Return the report of verdicts of one kernel, which took two VMs."""
    run = zoo.KernelRun(verdicts=verdicts, absent={IN_RUST: "no Rust"}, release="7.3.4", boots=2)
    return zoo.plan_report((ENTRY,), verdicts, {"kasan": run}, {"kcsan": BuildError("no")}, 12.34)


def test_the_report_has_what_was_expected_and_seen() -> None:
    good, bad = zoo.judge(IN_C, complain("kasan")), zoo.judge(IN_RUST, ran())
    made = plan_report(good, bad)
    document = documents.to_json(made)
    assert document["schema"] == "twinmod.zoo/1"
    (entry,) = document["entries"]
    assert (entry["name"], entry["kind"], entry["reference"]) == ("bug", "a bug", "CVE-2000-0001")
    assert entry["c"]["stopped_by"] == "sanitizer"
    assert entry["c"]["evidence"] == ["BUG: kasan"]
    assert (entry["rust"]["stopped_by"], entry["rust"]["as_expected"]) == ("nowhere", False)
    assert document["mismatches"] == ["bug/rust"]
    assert document["kernels"] == {"kasan": "7.3.4"}
    assert document["absent"] == [{"attempt": "bug/rust", "reason": "no Rust"}]
    assert document["failed"] == {"kcsan": "no"}
    assert (document["seconds"], document["boots"]) == (12.3, 2)


def test_a_report_is_whole_with_all_attempts_and_no_mismatch() -> None:
    good, bad = zoo.judge(IN_C, complain("kasan")), zoo.judge(IN_RUST, ran())
    document = plan_report(good)
    assert zoo.is_whole(document, 1)
    assert not zoo.is_whole(document, 2), "a part of the zoo vouches for nothing"
    both = plan_report(good, bad)
    assert not zoo.is_whole(both, 2), "one of them did not end as expected"


def test_a_mismatch_is_said_with_both_sides() -> None:
    text = zoo.render_troubles((zoo.judge(IN_C, complain("oops")),))
    assert text.startswith("bug/c: expected sanitizer (kasan), seen crash (oops)")
    assert "BUG: oops" in text
    assert zoo.render_troubles((zoo.judge(IN_C, complain("kasan")),)) == ""


def test_the_table_has_a_line_for_each_bug_and_each_further_attempt() -> None:
    more = replace(IN_RUST, variant="rust_unsafe")
    verdicts = (
        zoo.judge(IN_C, complain("kasan")),
        zoo.judge_refusal(IN_RUST, WORDS),
        zoo.judge(more, ran()),
    )
    table = zoo.render_table(verdicts)
    assert [list(column.cells) for column in table.columns] == [
        ["bug", "  rust_unsafe"],
        ["sanitizer (kasan)", ""],
        ["compile (E0382)", "nowhere"],
        ["yes", "NO"],
    ]
    assert zoo.render_totals(verdicts, 9.6) == "2 of 3 attempts stopped as expected, in 10 s"


# -- a run ------------------------------------------------------------------------------------


#: Takes attempts and the name of a kernel whose setup fails, "" for none.
RunZoo = Callable[[tuple[zoo.Attempt, ...], str], zoo_run.ZooRun]


@pytest.fixture
def run_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: Progress, tree: KernelTree
) -> RunZoo:
    """Run attempts on kernels without Rust, of which the setup of one may fail."""
    broken: list[str] = []

    def setup(workspace: Workspace) -> Prepared:
        if workspace.config.kernel.name in broken:
            raise BuildError("the kernel did not build")
        bare = replace(tree, proof=replace(tree.proof, rustc=""))
        return Prepared(chroot=tree.compilers, tree=bare, site_dir=tmp_path, crates_dir=tmp_path)

    def prepare_jobs(*arguments: Any) -> dict[zoo.Attempt, Callable[[], Built]]:
        return {attempt: engine.plan_built(Built()) for attempt in arguments[2]}

    def run_steps(_: Bench, builds: Builds[zoo.Attempt], *__: Any) -> dict[zoo.Attempt, Ran]:
        return {
            attempt: Ran(built=builds.find(attempt), results=(complain(attempt.expected.by),))
            for attempt in builds.variants
        }

    monkeypatch.setattr(Workspace, "setup", setup)
    monkeypatch.setattr(zoo_run, "prepare_jobs", prepare_jobs)
    monkeypatch.setattr(engine, "run_steps", run_steps)
    config = msgspec.structs.replace(CONFIG, out_dir=tmp_path / "out")

    def run_attempts(attempts: tuple[zoo.Attempt, ...], name: str) -> zoo_run.ZooRun:
        broken.append(name)
        workspace = Workspace(config=config, progress=progress)
        return zoo_run.run_zoo(workspace, (ENTRY,), attempts)

    return run_attempts


def test_attempts_that_a_kernel_cannot_have_are_absent(run_zoo: RunZoo) -> None:
    program = replace(IN_RUST, variant="rust_program", space=zoo.Space.USER)
    run = run_zoo((IN_C, IN_RUST, program), "")
    assert [verdict.attempt for verdict in run.verdicts] == [IN_C]
    assert run.document.mismatches == ()
    assert [one.attempt for one in run.document.absent] == ["bug/rust", "bug/rust_program"]
    assert all("built without Rust" in one.reason for one in run.document.absent)
    assert not zoo.is_whole(run.document, 3)


def test_nothing_is_made_of_attempts_that_no_kernel_can_have(
    run_zoo: RunZoo, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"nothing is left to do: kernel .* without Rust"):
        run_zoo((IN_RUST,), "")
    assert not (tmp_path / "out/zoo/report.json").exists()


def test_a_kernel_that_fails_ends_no_attempts_of_another(
    run_zoo: RunZoo, tmp_path: Path, told: list[str]
) -> None:
    stock = replace(IN_C, kernel="stock")
    run = run_zoo((IN_C, stock), "kasan")
    assert [verdict.attempt for verdict in run.verdicts] == [stock]
    assert run.failed["kasan"].exit_code == 4
    assert run.document.failed == {"kasan": "the kernel did not build"}
    path = tmp_path / "out/zoo/report.json"
    assert documents.read(path, zoo.ZooReport, "it", "") == run.document
    assert "kernel kasan: error: the kernel did not build" in told

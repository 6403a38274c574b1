# SPDX-License-Identifier: GPL-2.0-only
"""The mutants fit today's sources, name the contract's rules, and are judged by what they do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from twinmod.base import documents
from twinmod.base.progress import Progress
from twinmod.builds import build
from twinmod.cells.model import Cell, CellResult, TestResult
from twinmod.errors import ConfigError
from twinmod.experiments import engine, mutants, mutants_run, variants
from twinmod.experiments.engine import Built
from twinmod.guest.protocol import Outcome
from twinmod.kernels.model import KernelTree
from twinmod.project import config as project_config
from twinmod.project import rules
from twinmod.workspace import Prepared, Workspace

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("c", "rust")
CONFIG = project_config.read_config(ROOT)
PAGE = mutants_run.read_page(CONFIG)
MUTANTS = mutants.plan_mutants(PAGE, LABELS)
RULES = tuple(number for number, _ in rules.parse_rules((ROOT / "DEVICE.md").read_text()))

MUTANT = mutants.Mutant(
    fault="short",
    label="c",
    why="it stops early",
    rules=("R4", "R5"),
    fatal=False,
    edits=(mutants.Edit(text="a < b", new="a <= b"),),
    refused="",
)
FILES = (("memory.py", '"R4"'), ("test_a.py", 'rule("R4")'), ("test_b.py", 'rule("R40")'))
ORIGINAL = Cell(module="mdriver_c", label="c", tester="c")
CELL = mutants.plan_cell(MUTANT, ORIGINAL, MUTANT.rules, FILES)


def ran(outcomes: dict[str, str], outcome: str = "failed") -> CellResult:
    """Return a cell in which a test of each rule ended in some way."""
    tests = tuple(
        TestResult(id=f"test_{rule}", rules=(rule,), outcome=Outcome(end), duration_s=1.0)
        for rule, end in outcomes.items()
    )
    return CellResult(cell=CELL, outcome=Outcome(outcome), tests=tests)


# -- the data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_to_todays_sources(mutant: mutants.Mutant) -> None:
    sources = build.read_sources(CONFIG.find_module(mutant.label), ROOT)
    mutated = mutants.plan_sources(mutant, sources)
    assert [name for name, _ in mutated] == [name for name, _ in sources]
    assert mutated != sources


def test_every_rule_is_named_by_a_mutant_or_excused() -> None:
    named = {rule for mutant in MUTANTS for rule in mutant.rules}
    assert named <= set(RULES)
    assert set(PAGE.unmutated) <= set(RULES)
    assert named | set(PAGE.unmutated) == set(RULES)
    assert not named & set(PAGE.unmutated)


def test_most_faults_are_made_in_both_languages() -> None:
    by_label = {m.label: sum(o.label == m.label for o in MUTANTS) for m in MUTANTS}
    assert all(count >= 15 for count in by_label.values())
    assert all(reason for fault in PAGE.faults for reason in fault.absent.values())


FAULT = """
[[fault]]
name = "x"
why = "y"
rules = ["R1"]
[[fault.c]]
text = "a"
with = "b"
"""
RUST = """
[[fault.rust]]
text = "a"
with = "b"
"""
ABSENT = '{}.{} = "why"\n'


def order_keys(text: str) -> str:
    """Return a page with what stands before its fault as keys of that fault."""
    keys, fault, rest = text.partition("\n[[fault]]\n")
    own = keys.startswith(("absent.", "refused."))
    return f"{fault}{keys}{rest}" if own else text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[unmutated", "not valid"),
        ("[[fault]]\nname = 'x'", "not valid"),
        ("fault = 1", "not valid"),
        ("fault = [1]", "not valid"),
        ("[fault]", "has no fault"),
        ("fault = []", "has no fault"),
        ("", "has no fault"),
        ("[unmutated]" + FAULT + RUST + FAULT + RUST, "two faults of one name: x"),
        ("[unmutated]" + FAULT, "fault x needs either an edit for rust or a reason"),
        (FAULT + 'absent = "no"', "not valid"),
        (FAULT + RUST.replace("rust", "ruts"), "fault x has an unknown key `ruts`"),
        (ABSENT.format("absent", "go") + FAULT + RUST, "absent.go names no module"),
        (ABSENT.format("refused", "go") + FAULT + RUST, "refused.go names no module"),
        (FAULT.replace('["R1"]', "[]") + RUST, "fault x has no rules"),
        (FAULT.replace("R1", "R3") + RUST, "fault x names R3, which the driver's contract lacks"),
        ("[unmutated]\nR9 = 'why'" + FAULT + RUST, "unmutated names R9, which"),
    ],
)
def test_bad_data_is_one_error(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        mutants.parse_page(order_keys(text), LABELS, ("R1", "R2"))


def test_the_nearest_key_is_among_the_facts() -> None:
    with pytest.raises(ConfigError) as caught:
        mutants.parse_page(FAULT + RUST.replace("rust", "ruts"), LABELS, ("R1",))
    assert caught.value.facts == (("nearest", "rust"),)


def test_a_driver_may_have_labels_of_its_own_and_no_contract() -> None:
    text = FAULT.replace("fault.c", "fault.fast-1").replace('rules = ["R1"]\n', "")
    page = mutants.parse_page(text, ("fast-1",), ())
    (mutant,) = mutants.plan_mutants(page, ("fast-1",))
    assert (mutant.name, mutant.rules) == ("fast-1/x", ())
    with pytest.raises(ConfigError, match="R1, which the driver's contract lacks") as caught:
        mutants.parse_page(FAULT, ("c",), ())
    assert "leave `rules` out" in caught.value.hint


# -- plans ------------------------------------------------------------------------------------


def test_a_fault_changes_the_one_place_that_it_names() -> None:
    sources = (("x.c", b"if (a < b)\n"), ("x.h", b"int a;\n"))
    mutated = (("x.c", b"if (a <= b)\n"), sources[1])
    assert mutants.plan_sources(MUTANT, sources) == mutated


@pytest.mark.parametrize(
    ("sources", "times"),
    [
        ((("x.c", b"a > b"),), "0 times"),
        ((("x.c", b"a < b a < b"),), "2 times"),
        ((("x.c", b"a < b"), ("x.h", b"a < b")), "2 times"),
    ],
)
def test_a_mutant_that_does_not_apply_is_an_error(
    sources: tuple[tuple[str, bytes], ...], times: str
) -> None:
    with pytest.raises(ConfigError, match=f"c/short no longer applies.*{times}"):
        mutants.plan_sources(MUTANT, sources)


def test_a_selection_goes_by_name_and_module() -> None:
    other = replace(MUTANT, label="rust")
    both = (MUTANT, other)
    assert mutants.select_mutants(both, "short", LABELS) == both
    assert mutants.select_mutants(both, "rust/sh", LABELS) == (other,)
    assert mutants.select_mutants(both, "", ("c",)) == (MUTANT,)
    with pytest.raises(ConfigError, match="-k long leaves no mutant"):
        mutants.select_mutants(both, "long", ("c",))


def test_a_mutant_has_a_cell_of_its_own() -> None:
    assert (CELL.name, CELL.rules, CELL.files) == ("c/c/short", ("R4", "R5"), ("test_a.py",))
    every = mutants.plan_cell(MUTANT, ORIGINAL, (), FILES)
    assert (every.rules, every.files) == ((), ())
    alone = mutants.plan_cell(MUTANT, replace(ORIGINAL, tester=""), (), FILES)
    assert alone.name == "c/short"


def test_files_of_rules_may_lie_in_folders_and_quote_either_way() -> None:
    files = (("deep/test_a.py", "rule('R4')"), ("deep/conftest.py", '"R4"'))
    assert mutants.find_files(("R4",), files) == ("deep/test_a.py",)


def test_what_a_vm_may_not_survive_comes_last() -> None:
    five = tuple(replace(MUTANT, fault=name, fatal=name in "bd") for name in "abcde")
    assert [mutant.fault for mutant in variants.plan_order(five)] == ["a", "c", "e", "b", "d"]


# -- verdicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", mutants.CAUGHT)
def test_a_mutant_is_caught_by_a_rule_that_it_names(outcome: str) -> None:
    verdict = mutants.judge(MUTANT, (ran({"R4": "passed", "R5": outcome}),), RULES, 2.0)
    assert (verdict.outcome, verdict.caught_by, verdict.tests) == ("caught", ("R5",), ("test_R5",))
    assert verdict.seconds == 4.0
    assert verdict.passed


@pytest.mark.parametrize(
    ("every", "outcome", "caught_by"),
    [
        ({"R4": "passed", "R5": "passed", "R9": "failed"}, "elsewhere", ("R9",)),
        ({"R4": "passed", "R5": "skipped", "R9": "passed"}, "survived", ()),
        # Seen by its own rule at the second look only.
        ({"R4": "failed", "R5": "passed"}, "caught", ("R4",)),
    ],
)
def test_a_mutant_that_its_rules_let_pass_is_held_to_all(
    every: dict[str, str], outcome: str, caught_by: tuple[str, ...]
) -> None:
    named = ran({"R4": "passed", "R5": "passed"}, "passed")
    verdict = mutants.judge(MUTANT, (named, ran(every)), RULES, 0.0)
    assert (verdict.outcome, verdict.caught_by) == (outcome, caught_by)


def test_a_module_that_does_not_load_is_caught_by_no_rule() -> None:
    cell = CellResult(cell=CELL, outcome=Outcome.FAILED, problems=("did not load: no",))
    verdict = mutants.judge(MUTANT, (cell, cell), RULES, 0.0)
    assert (verdict.outcome, verdict.detail) == ("survived", "did not load: no")
    assert not verdict.passed


@pytest.mark.parametrize(
    ("outcome", "fate"), [("failed", "caught"), ("crashed", "caught"), ("passed", "survived")]
)
def test_without_rules_whatever_fails_a_cell_catches_a_mutant(outcome: str, fate: str) -> None:
    mutant = replace(MUTANT, rules=())
    cell = CellResult(cell=CELL, outcome=Outcome(outcome), problems=("did not load: no",))
    assert mutants.judge(mutant, (cell,), (), 0.0).outcome == fate


WORDS = """\
error[E0599]: no method named `add` found for struct `SpinLock`
  --> mdriver_rust.rs:1:1
error[E0308]: mismatched types
error: aborting due to 2 previous errors
"""


@pytest.mark.parametrize(
    ("refused", "outcome"), [("E0599", "refused"), ("E0277", "no build"), ("", "no build")]
)
def test_only_the_error_that_an_entry_names_is_a_good_one(refused: str, outcome: str) -> None:
    verdict = mutants.judge_refusal(replace(MUTANT, refused=refused), WORDS, 1.0)
    assert (verdict.outcome, verdict.caught_by) == (outcome, ("E0599", "E0308"))
    assert verdict.passed == (outcome == "refused")


def test_a_mutant_that_must_not_build_and_does_is_judged_by_its_rules() -> None:
    mutant = replace(MUTANT, refused="E0599")
    verdict = mutants.judge(mutant, (ran({"R4": "passed"}),) * 2, RULES, 0.0)
    assert verdict.outcome == "survived"


# -- the report -------------------------------------------------------------------------------

VERDICTS = (
    mutants.Verdict(
        mutant=MUTANT, outcome=mutants.Fate.CAUGHT, caught_by=("R4",), tests=("t",), seconds=1.26
    ),
    mutants.Verdict(
        mutant=replace(MUTANT, label="rust"), outcome=mutants.Fate.SURVIVED, seconds=2.0
    ),
)


def test_the_report_says_what_was_expected_and_what_came() -> None:
    document = documents.to_json(mutants.plan_report(VERDICTS, "7.3", ("R6",), 61.04))
    assert document["schema"] == "twinmod.mutation/1"
    assert document["mutants"][0] == {
        "name": "short",
        "module": "c",
        "why": "it stops early",
        "expected": ["R4", "R5"],
        "outcome": "caught",
        "caught_by": ["R4"],
        "tests": ["t"],
        "detail": "",
        "seconds": 1.3,
    }
    assert document["totals"] == {
        "caught": 1,
        "refused": 0,
        "elsewhere": 0,
        "survived": 1,
        "no build": 0,
    }
    assert (document["idle_rules"], document["seconds"]) == (["R6"], 61.0)


def test_a_rule_that_caught_nothing_is_idle_unless_it_is_excused() -> None:
    assert mutants.find_idle_rules(VERDICTS, ("R4", "R5", "R6"), {"R6": "why"}) == ("R5",)


def test_the_text_names_every_survivor() -> None:
    assert mutants.render_troubles(VERDICTS, ("R6",)) == (
        "rust/short survived: it stops early\nR6 caught none"
    )
    assert mutants.render_troubles(VERDICTS[:1], ()) == ""
    assert mutants.render_totals(VERDICTS, 60.2) == "2 mutants in 60 s: 1 caught, 1 survived"
    assert mutants.render_totals(VERDICTS[:1], 1.0) == "1 mutants in 1 s: 1 caught, 0 survived"


# -- a run ------------------------------------------------------------------------------------


#: Takes mutants, returns those that come as far as a VM.
RunMutants = Callable[[tuple[mutants.Mutant, ...]], tuple[mutants.Mutant, ...]]


@pytest.fixture
def run_mutants(
    monkeypatch: pytest.MonkeyPatch,
    tree: KernelTree,
    progress: Progress,
    tmp_path: Path,
) -> RunMutants:
    """Run mutants on a kernel without Rust."""
    bare = replace(tree, proof=replace(tree.proof, rustc=""))
    prepared = Prepared(
        chroot=tree.compilers, tree=bare, site_dir=Path("/site"), crates_dir=Path("/crates")
    )
    built: list[tuple[str, ...]] = []

    def build_originals(*arguments: Any) -> tuple[()]:
        built.append(arguments[2])
        return ()

    monkeypatch.setattr(Workspace, "build", build_originals)
    for name in ("prepare_build", "prepare_complete", "require_originals"):
        monkeypatch.setattr(mutants_run, name, lambda *_: None)
    monkeypatch.setattr(mutants_run, "build_one", lambda *_: Built())
    monkeypatch.setattr(
        engine, "run_steps", lambda _, builds, __: {m: builds.find(m) for m in builds.variants}
    )
    monkeypatch.setattr(mutants_run, "judge", lambda mutant, *_: mutant)
    config = msgspec.structs.replace(CONFIG, out_dir=tmp_path)

    def run(selected: tuple[mutants.Mutant, ...]) -> tuple[mutants.Mutant, ...]:
        workspace = Workspace(config=config, progress=progress)
        ran: Any = mutants_run.judge_mutants(workspace, prepared, selected, RULES)
        assert built == [("c",)]
        return tuple(ran)

    return run


def test_mutants_that_a_kernel_cannot_have_are_left_out_and_named(
    run_mutants: RunMutants, told: list[str]
) -> None:
    both = (MUTANT, replace(MUTANT, label="rust"))
    assert run_mutants(both) == (MUTANT,)
    assert any(line.startswith("mdriver_rust is absent: kernel") for line in told)


def test_mutants_of_which_a_kernel_can_have_none_are_refused(run_mutants: RunMutants) -> None:
    with pytest.raises(ConfigError, match="nothing is left to do"):
        run_mutants((replace(MUTANT, label="rust"),))

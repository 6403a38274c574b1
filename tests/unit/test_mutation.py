# SPDX-License-Identifier: GPL-2.0-only
"""The mutants fit today's sources, name the contract's rules, and are judged by what they do."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from twinmod.base import documents
from twinmod.base.progress import Progress
from twinmod.builds import build
from twinmod.cells.model import Cell, CellResult, TestResult
from twinmod.errors import ConfigError
from twinmod.experiments import engine, variants
from twinmod.experiments.engine import Built
from twinmod.guest.protocol import Outcome
from twinmod.kernels.model import KernelTree
from twinmod.project import config as project_config
from twinmod.project import rules
from twinmod.project.model import Language
from twinmod.workspace import Prepared, Workspace

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/mutation"))

import mutants  # noqa: E402

PAGE = mutants.parse_page((ROOT / "tests/mutation/mutants.toml").read_text())
MUTANTS = mutants.plan_mutants(PAGE)
CONFIG = project_config.read_config(ROOT)
RULES = tuple(number for number, _ in rules.parse_rules((ROOT / "DEVICE.md").read_text()))

MUTANT = mutants.Mutant(
    fault="short",
    language=Language.C,
    why="it stops early",
    rules=("R4", "R5"),
    fatal=False,
    edits=(mutants.Edit(text="a < b", new="a <= b"),),
    refused="",
)
FILES = (("memory.py", '"R4"'), ("test_a.py", 'rule("R4")'), ("test_b.py", 'rule("R40")'))
CELL = mutants.plan_cell(MUTANT, "mdriver_c", MUTANT.rules, FILES)


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
    sources = build.read_sources(CONFIG.find_module(mutant.language), ROOT)
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
    by_language = {m.language: sum(o.language == m.language for o in MUTANTS) for m in MUTANTS}
    assert all(count >= 15 for count in by_language.values())
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


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[unmutated", "not valid"),
        ("[[fault]]\nname = 'x'", "not valid"),
        ("[unmutated]" + FAULT + RUST + FAULT + RUST, "two faults of one name: x"),
        ("[unmutated]" + FAULT, "fault x needs either an edit for rust or a reason"),
        ("[unmutated]" + FAULT + "absent = 1", "not valid"),
    ],
)
def test_bad_data_is_one_error(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        mutants.parse_page(text)


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


def test_a_selection_goes_by_name_and_language() -> None:
    other = replace(MUTANT, language=Language.RUST)
    both = (MUTANT, other)
    assert mutants.select_mutants(both, "short", (Language.C, Language.RUST)) == both
    assert mutants.select_mutants(both, "rust/sh", (Language.C, Language.RUST)) == (other,)
    assert mutants.select_mutants(both, "", (Language.C,)) == (MUTANT,)
    with pytest.raises(ConfigError, match="-k long leaves no mutant"):
        mutants.select_mutants(both, "long", (Language.C,))


def test_a_mutant_has_a_cell_of_its_own() -> None:
    assert (CELL.name, CELL.rules, CELL.files) == ("c/c/short", ("R4", "R5"), ("test_a.py",))
    every = mutants.plan_cell(MUTANT, "mdriver_c", (), FILES)
    assert (every.rules, every.files) == ((), ())
    assert Cell(module="mdriver_c", label="c", tester="c").name == "c/c"


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
        mutant=replace(MUTANT, language=Language.RUST), outcome=mutants.Fate.SURVIVED, seconds=2.0
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


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script, which lies outside the package."""
    path = ROOT / "tests/mutation/run.py"
    spec = importlib.util.spec_from_file_location("mutation_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutation_run"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutation_run"]


#: Takes mutants, returns those that come as far as a VM.
RunMutants = Callable[[tuple[mutants.Mutant, ...]], tuple[mutants.Mutant, ...]]


@pytest.fixture
def run_mutants(
    script: ModuleType,
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
    monkeypatch.setattr(Workspace, "setup", lambda _: prepared)
    monkeypatch.setattr(Workspace, "build", lambda *arguments: built.append(arguments[2]))
    for name in ("prepare_build", "require_originals"):
        monkeypatch.setattr(script, name, lambda *_: None)
    monkeypatch.setattr(script, "build_one", lambda *_: Built())
    monkeypatch.setattr(
        engine, "run_steps", lambda _, builds, __: {m: builds.find(m) for m in builds.variants}
    )
    monkeypatch.setattr(script, "judge", lambda mutant, *_: mutant)
    config = msgspec.structs.replace(CONFIG, out_dir=tmp_path)

    def run(selected: tuple[mutants.Mutant, ...]) -> tuple[mutants.Mutant, ...]:
        ran, _, _ = script.run_mutants(Workspace(config=config, progress=progress), selected)
        assert built == [("c",)]
        return tuple(ran)

    return run


def test_mutants_that_a_kernel_cannot_have_are_left_out_and_named(
    run_mutants: RunMutants, told: list[str]
) -> None:
    both = (MUTANT, replace(MUTANT, language=Language.RUST))
    assert run_mutants(both) == (MUTANT,)
    assert any(line.startswith("mdriver_rust is absent: kernel") for line in told)


def test_mutants_of_which_a_kernel_can_have_none_are_refused(run_mutants: RunMutants) -> None:
    with pytest.raises(ConfigError, match="nothing is left to do"):
        run_mutants((replace(MUTANT, language=Language.RUST),))

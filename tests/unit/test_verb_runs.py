# SPDX-License-Identifier: GPL-2.0-only
"""Verbs that start VMs, from the command line to the exit code and the report.

bwrap, and with it QEMU and every compiler, is a program that plays a script; everything else is as
it is in a run. See tests/fakevm.
"""

import json
import os
import stat
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import configuration

import fakevm
from fakevm import BOOT, CELLS, KILL, RULES, SILENCE, Host, MakeElf
from twinmod.base import cache
from twinmod.base.progress import Progress
from twinmod.bench import figures
from twinmod.differential import explorer
from twinmod.errors import ExitCode

NAMES = tuple(cell.name for cell in CELLS)


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Host:
    return fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take no time for intervals; let hypothesis keep what it keeps where it did before."""
    monkeypatch.setattr(figures, "DRAWS", 10)
    before = configuration.storage_directory(intent_to_write=False).path
    yield
    configuration.set_hypothesis_home_dir(before)


@pytest.fixture
def _shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw few sequences."""
    monkeypatch.setattr(explorer, "EXAMPLES", 5)


# -- test -------------------------------------------------------------------------------------


def test_a_run_of_the_matrix_ends_in_a_table_a_report_and_junit(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.call("test") == ExitCode.PASSED
    report = host.read("test/report.json")
    cells = [(cell["module"], cell["tester"], cell["outcome"]) for cell in report["cells"]]
    assert cells == [(cell.module, cell.tester, "passed") for cell in CELLS]
    assert [test["rule"] for test in report["cells"][0]["tests"]] == [*RULES]
    # The tests of the cells, and a round of the differential for each tester.
    assert report["totals"] == {"passed": 10, "failed": 0, "skipped": 0}
    assert report["differential"]["carried_out"] == {"put": 4, "take": 2}
    assert report["differential"]["refused"] == {"put": 0, "take": 2}
    assert report["boots"] == 1
    assert "accelerator" in {phase["title"] for phase in report["phases"]}
    assert report["vm_phases"][0]["title"] == "boot"
    suites = ET.parse(host.project_dir / "out/test/junit.xml").getroot()  # noqa: S314
    assert [suite.get("name") for suite in suites] == [*NAMES, "differential"]
    assert sum(int(suite.get("tests", "0")) for suite in suites) == 10
    shown = capsys.readouterr().out
    assert "R1" in shown
    assert ["cell", "pass", "pass", "pass", "pass"] in [line.split() for line in shown.splitlines()]
    assert "10 passed" in shown
    assert host.read("test/vm-1/results/plan.json")["version"] == "0.1.0"
    assert (host.project_dir / "out/.lock").exists(), "two runs may write into one folder"
    assert host.vms == ["test/vm-1"]
    assert not host.left


@pytest.fixture
def matrix_dir(host: Host) -> Iterator[Path]:
    """The folder of the tests; what a test adds to it is gone afterwards."""
    folder = host.project_dir / "matrix"
    before = {*folder.iterdir()}
    yield folder
    for path in {*folder.iterdir()} - before:
        path.unlink()


def test_programs_among_the_tests_are_compiled_and_keep_their_executable_bits(
    host: Host, matrix_dir: Path
) -> None:
    for name in ("call.c", "_shared.c", "old.m32.c", "run.sh", "plain.sh"):
        (matrix_dir / name).write_text("")
    (matrix_dir / "run.sh").chmod(0o755)
    assert host.call("test") == ExitCode.PASSED
    found = cache.find_cache_dir().glob("programs/*/matrix")
    (made,) = (path for path in found if (path / "run.sh").exists())
    files = {path.name: path for path in made.iterdir() if path.is_file()}
    compiled = {name for name, path in files.items() if path.read_bytes() == b"a program"}
    assert compiled == {"call", "old.m32"}
    modes = {name: files[name].stat().st_mode & stat.S_IXUSR for name in ("run.sh", "plain.sh")}
    assert modes == {"run.sh": stat.S_IXUSR, "plain.sh": 0}


def test_a_test_in_c_that_does_not_compile_ends_a_run_before_a_vm(
    host: Host, matrix_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (matrix_dir / "call.c").write_text("")
    host.refuse("call", "/twinmod/matrix/call.c:3:9: error: 'x' undeclared\n")
    assert host.call("test") == ExitCode.BUILD_FAILED
    said = capsys.readouterr().err
    assert "error: test call.c does not compile\n" in said
    assert f"{matrix_dir}/call.c:3:9: error: 'x' undeclared" in said
    assert host.vms == []


def test_a_run_without_a_verb_has_a_report_without_phases(host: Host, progress: Progress) -> None:
    run = fakevm.run_matrix(host, progress)
    assert [cell.outcome for cell in run.cells] == ["passed"] * 4
    assert host.read("other/report.json")["phases"] == []
    assert host.vms == ["other/vm-1"]


def test_a_test_that_failed_is_the_exit_code_and_is_shown(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = fakevm.run_test("R2", "failed", "test_toy.py:7: 1 != 2")
    cell = (fakevm.begin("rust/c"), *fakevm.run_test("R1"), *failing, fakevm.end("failed"))
    host.play_cell("rust/c", *cell)
    assert host.call("test") == ExitCode.TESTS_FAILED
    assert host.read("test/report.json")["totals"]["failed"] == 1
    assert "test_toy.py:7: 1 != 2" in capsys.readouterr().out


DECLARED = """
[[tool.twinmod.drivers.toy.differences]]
module = "rust"
rule = "R2"
why = "it rounds up"
"""


def declare(host: Host, text: str = DECLARED) -> None:
    """Let the project declare a difference."""
    path = host.project_dir / "pyproject.toml"
    path.write_text(fakevm.PROJECT["pyproject.toml"] + text)


def fail_rule(host: Host, *cells: str) -> None:
    """Let R2 fail in cells."""
    for cell in cells:
        failing = fakevm.run_test("R2", "failed", "test_toy.py:7: 1 != 2")
        host.play_cell(
            cell, fakevm.begin(cell), *fakevm.run_test("R1"), *failing, fakevm.end("failed")
        )


@pytest.mark.parametrize("options", [(), ("-x",), ("--rule", "R2")])
def test_a_rule_that_fails_as_declared_fails_no_run_and_is_shown(
    host: Host, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    declare(host)
    fail_rule(host, "rust/c", "rust/rust")
    assert host.call("test", *options) == ExitCode.PASSED
    report = host.read("test/report.json")
    assert report["differences"] == [
        {
            "module": "rust",
            "subject": "rule",
            "pattern": "R2",
            "why": "it rounds up",
            "cells": ["rust/c", "rust/rust"],
        }
    ]
    assert report["totals"]["failed"] == 0
    assert report["totals"]["skipped"] == 2
    said = capsys.readouterr()
    assert "rust differs as declared in rule 'R2' (rust/c, rust/rust): it rounds up" in said.out
    assert "differs" in said.out.split()
    assert "first failure" not in said.err
    suites = ET.parse(host.project_dir / "out/test/junit.xml").getroot()  # noqa: S314
    kept = [found.get("type") for found in suites.iter("skipped")]
    assert kept == ["declared"] * 2
    known = json.loads((host.project_dir / "out/history/toy.json").read_text())
    assert known["failed"] == {}


def test_a_declared_difference_that_does_not_occur_fails_a_run_with_one_line(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(host)
    fail_rule(host, "rust/c")
    assert host.call("test") == ExitCode.TESTS_FAILED
    shown = [line for line in capsys.readouterr().out.splitlines() if "declared difference" in line]
    assert shown == [
        (
            "rust/rust failed: the declared difference of rust, rule 'R2', does not occur in "
            "rust/rust: it rounds up"
        )
    ]
    assert host.read("test/report.json")["totals"]["failed"] == 1


def test_a_difference_of_an_unknown_rule_ends_a_run_before_a_vm(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(host, DECLARED.replace("R2", "R9"))
    assert host.call("test") == ExitCode.USAGE
    assert "has the rule 'R9', which DEVICE.md does not have" in capsys.readouterr().err
    assert host.vms == []


def test_a_rule_that_no_test_answered_for_fails_its_cell(host: Host) -> None:
    host.play_cell("c/c", fakevm.begin("c/c"), *fakevm.run_test("R1"), fakevm.end())
    assert host.call("test") == ExitCode.TESTS_FAILED
    (cell, *_) = host.read("test/report.json")["cells"]
    assert "R2 has no outcome" in cell["problems"]


def test_what_a_run_made_fail_on_demand_is_in_its_report(host: Host) -> None:
    frame = "toy_c_read+0x4/0x10 [toy_c]"
    failure = {"path": "load", "nth": 1, "kind": "failslab", "errno": 12, "stack": [frame]}
    left = ("file", "failures-toy_c-c.jsonl", json.dumps(failure))
    host.play("vm-1", BOOT, left, ("cells",), ("end",))
    assert host.call("test") == ExitCode.PASSED
    assert host.read("test/report.json")["injected"] is not None


def test_a_kernel_fault_is_the_exit_code_and_the_rest_is_run(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = (fakevm.begin("c/c", 2.0), fakevm.begin_test("R1", "R1", at_s=2.5))
    host.play("vm-1", BOOT, *begun, ("console", fakevm.OOPS), KILL)
    assert host.call("test") == ExitCode.KERNEL_FAULT
    report = host.read("test/report.json")
    assert [cell["outcome"] for cell in report["cells"]] == ["crashed", *["passed"] * 3]
    assert report["boots"] == 2
    assert report["differential"]["outcome"] == "passed"
    assert "NULL pointer" in capsys.readouterr().out


def test_a_vm_that_does_not_boot_is_the_exit_code(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.play("vm-1", ("stderr", "qemu: no memory\n"), ("exit", 1))
    assert host.call("test") == ExitCode.VM_LOST
    shown = capsys.readouterr().err
    assert "the VM ended before its first cell; QEMU said: qemu: no memory" in shown
    assert not (host.project_dir / "out/test/report.json").exists()


def test_a_module_that_does_not_compile_boots_no_vm(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    (host.project_dir / "rust_module/toy_rust.rs").write_text("struct Moved;\n")
    host.refuse("toy_rust")
    assert host.call("test") == ExitCode.BUILD_FAILED
    assert "E0382" in capsys.readouterr().err
    assert host.vms == []


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_ends_a_run_and_leaves_nothing(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.play("vm-1", BOOT, fakevm.begin("c/c"), ("child",), ("interrupt",), SILENCE)
    assert host.call("test") == ExitCode.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
    assert not host.left
    assert not (host.project_dir / "out/test/vm-1/initramfs").exists()
    host.play("vm-1", BOOT, ("cells",), ("end",))
    assert host.call("test") == ExitCode.PASSED, "what was left keeps the next run from working"


def test_a_narrowed_run_has_those_tests_and_no_differential(host: Host) -> None:
    cell = (fakevm.begin("@CELL@"), *fakevm.run_test("R1"), fakevm.end())
    for name in NAMES:
        host.play_cell(name, *cell)
    assert host.call("test", "--rule", "R1", "--module", "c") == ExitCode.PASSED
    report = host.read("test/report.json")
    assert report["narrowed"] == "cells c/c c/rust, --rule R1"
    assert len(report["cells"]) == 2
    assert report["differential"] is None
    plan = host.read("test/vm-1/results/plan.json")
    assert [cell["job"]["rules"] for cell in plan["cells"]] == [["R1"]] * 2


# -- recorded, and replayed -------------------------------------------------------------------


def record(host: Host) -> str:
    """Record a run; return the folder of its VM."""
    console = ("console", "[    1.0] Linux\n")
    host.play("vm-1", console, BOOT, ("cells",), ("end",))
    assert host.call("test", "--record") == ExitCode.PASSED
    host.play("replay", console, BOOT, ("cells",), ("end",))
    return str(host.project_dir / "out/test/vm-1")


def test_a_recorded_vm_is_replayed_line_by_line(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    vm_dir = record(host)
    capsys.readouterr()
    assert host.call("replay", vm_dir) == ExitCode.PASSED
    assert "results/console.log: the same 1 lines" in capsys.readouterr().out
    assert host.vms == ["test/vm-1", "replay"]
    assert any("rr=replay" in word for word in host.started[-1]["argv"])


def test_a_replay_that_differs_says_so_and_shows_the_fault(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    vm_dir = record(host)
    host.play("replay", ("console", fakevm.OOPS), BOOT, KILL)
    assert host.call("replay", vm_dir) == ExitCode.TESTS_FAILED
    shown = capsys.readouterr().out
    assert "results/console.log: differs from line 1 on" in shown
    assert "oops: BUG: kernel NULL pointer dereference" in shown


def test_a_replay_with_a_debugger_waits_for_it(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    vm_dir = record(host)
    assert host.call("replay", vm_dir, "--gdb") == ExitCode.PASSED
    assert host.started[-1]["argv"][-1] == "-S"
    assert "in another terminal: twinmod gdb" in capsys.readouterr().err
    assert not (host.project_dir / "out/gdb/gdb.json").exists()


# -- the differential -------------------------------------------------------------------------


def test_modules_that_disagree_with_the_model_leave_the_smallest_script_of_it(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.play_cell("differential", *fakevm.serve(**{"from": 4, "how": "wrong"}))
    assert host.call("test") == ExitCode.TESTS_FAILED
    failure = host.read("test/report.json")["differential"]["failure"]
    assert failure["steps"] == ["put(value=4)"]
    assert failure["again"]
    script = host.project_dir / failure["script"]
    assert script.read_text().splitlines()[-1] == "put(value=4)"
    assert (host.project_dir / "out/test/found.replay").exists()
    capsys.readouterr()
    assert host.call("test", "--replay", str(script)) == ExitCode.TESTS_FAILED
    assert "DIFFER" in capsys.readouterr().out
    host.play_cell("differential", *fakevm.serve())
    assert host.call("test", "--replay", str(script)) == ExitCode.PASSED
    assert "agree" in capsys.readouterr().out


STEP = """
[[tool.twinmod.drivers.toy.differences]]
module = "rust"
step = "at the end"
why = "it rounds up"
"""


def test_a_step_that_differs_as_declared_fails_no_run(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(host, STEP)
    wrong = {"from": 5, "how": "wrong"}
    host.play_cell("differential", *fakevm.serve(**wrong))
    assert host.call("test") == ExitCode.PASSED
    (found,) = host.read("test/report.json")["differences"]
    assert (found["subject"], found["cells"]) == ("step", ["differential"])
    assert "rust differs as declared in step 'at the end'" in capsys.readouterr().out
    script = host.project_dir / "matrix/adding/corpus/first.replay"
    assert host.call("test", "--replay", str(script)) == ExitCode.PASSED


@pytest.mark.parametrize("step", ["at the end", "nowhere(*)"])
def test_a_declared_step_that_agrees_or_is_not_there_fails_a_run(
    host: Host, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(host, STEP.replace("at the end", step))
    assert host.call("test") == ExitCode.TESTS_FAILED
    problem = f"the declared difference of rust, step '{step}', does not occur: it rounds up"
    assert host.read("test/report.json")["differential"]["problems"] == [problem]
    assert f"differential failed: {problem}" in capsys.readouterr().out


@pytest.fixture
def without_model(host: Host) -> Iterator[Host]:
    """A project whose differential has no model, and whose driver has no contract and no tester."""
    folder = host.project_dir / "matrix/comparing"
    (folder / "corpus").mkdir(parents=True)
    (folder / "strategy.py").write_text(fakevm.STRATEGY.partition("def expect")[0])
    script = fakevm.SCRIPT.replace(", tester='c'", "").replace("size=4096", "size=0")
    (folder / "corpus/first.replay").write_text(script)
    (folder / "strategy.py").write_text(
        (folder / "strategy.py").read_text().replace("(4096,)", "(0,)")
    )
    lines = fakevm.PROJECT["pyproject.toml"].replace("adding", "comparing").splitlines()
    kept = [line for line in lines if not line.startswith(("contract", "testers"))]
    (host.project_dir / "pyproject.toml").write_text("\n".join(kept) + "\n")
    yield host
    cache.remove_tree(folder)


def test_modules_without_a_model_are_compared_with_the_first(
    without_model: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host = without_model
    assert host.call("test") == ExitCode.PASSED
    report = host.read("test/report.json")
    assert [cell["module"] for cell in report["cells"]] == ["toy_c", "toy_rust"]
    found = report["differential"]
    suites = ET.parse(host.project_dir / "out/test/junit.xml").getroot()  # noqa: S314
    assert [case.get("name") for case in suites[-1]] == ["differential"]
    assert (found["carried_out"], found["refused"]) == (
        {"put": 2, "take": 1},
        {"put": 0, "take": 1},
    )
    host.play_cell("differential", *fakevm.serve(**{"from": 5, "how": "wrong"}))
    assert host.call("test") == ExitCode.TESTS_FAILED
    failure = host.read("test/report.json")["differential"]["failure"]
    assert failure["steps"] == ["put(value=5)"]
    assert failure["message"] == "at the end: toy_c [5], toy_rust [6]"
    capsys.readouterr()
    assert host.call("test", "--replay", failure["script"]) == ExitCode.TESTS_FAILED
    assert "toy_c [5], toy_rust [6]" in capsys.readouterr().out
    with (host.project_dir / "pyproject.toml").open("a") as file:
        file.write(STEP)
    assert host.call("test") == ExitCode.PASSED
    assert [one["why"] for one in host.read("test/report.json")["differences"]] == ["it rounds up"]


def test_one_module_without_a_model_is_compared_with_nothing(without_model: Host) -> None:
    assert without_model.call("test", "--module", "c") == ExitCode.PASSED
    assert without_model.read("test/report.json")["differential"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("modules.rust", "# modules.rust"), "has no model and the driver one module"),
        (("it", "it"), "number 1, has a step of c, with which the other modules are compared"),
    ],
)
def test_a_differential_that_compares_nothing_is_refused(
    without_model: Host,
    change: tuple[str, str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = without_model.project_dir / "pyproject.toml"
    path.write_text(path.read_text().replace(*change) + STEP.replace("rust", "c"))
    assert without_model.call("test") == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert without_model.vms == []


@pytest.mark.parametrize(
    ("how", "outcome", "code"),
    [("die", "lost", ExitCode.VM_LOST), ("oops", "crashed", ExitCode.KERNEL_FAULT)],
)
def test_a_vm_that_dies_of_a_sequence_is_followed_by_others_until_the_smallest_is_known(
    host: Host, how: str, outcome: str, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    host.play_cell("differential", *fakevm.serve(**{"from": 5, "how": how}))
    assert host.call("test") == code
    report = host.read("test/report.json")
    failure = report["differential"]["failure"]
    assert (failure["outcome"], failure["steps"]) == (outcome, ["put(value=5)"])
    assert "the VM died of it" in failure["message"]
    assert [cell["outcome"] for cell in report["cells"]] == ["passed"] * 4
    assert host.vms[:2] == ["test/vm-1", "test/vm-again-1"]
    assert not host.left
    capsys.readouterr()
    assert host.call("test", "--replay", failure["script"]) == code
    assert outcome.upper() in capsys.readouterr().out


@pytest.mark.usefixtures("_shallow")
def test_a_soak_draws_sequences_and_keeps_some_for_a_corpus(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.call("soak", "--minutes", "0.0001", "--seed", "1") == ExitCode.PASSED
    report = host.read("soak/report.json")
    assert report["differential"]["outcome"] == "passed"
    assert report["differential"]["sequences"] > 0
    assert report["seed"] == 1
    assert {module["module"] for module in report["modules"]} == {"toy_c", "toy_rust"}
    assert [*(host.project_dir / "out/soak/corpus").glob("4096-*.replay")]
    assert "seed 1" in capsys.readouterr().out
    (plan,) = host.read("soak/vm-1/results/plan.json")["cells"]
    assert plan["name"] == "differential"


@pytest.mark.usefixtures("_shallow")
def test_a_soak_that_finds_something_has_failed(host: Host) -> None:
    host.play_cell("differential", *fakevm.serve(**{"from": 0, "how": "wrong"}))
    assert host.call("soak", "--minutes", "0.0001", "--seed", "1") == ExitCode.TESTS_FAILED
    assert host.read("soak/report.json")["differential"]["failure"]["outcome"] == "failed"


# -- counter ----------------------------------------------------------------------------------


def test_a_counter_counts_in_every_cell(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.call("counter", "-n", "3", "-w", "2", "--method", "add") == ExitCode.PASSED
    shown = capsys.readouterr().out
    for name in NAMES:
        assert f"{name}  Target 6  Actual 6" in shown
    plan = host.read("counter/repeat-1/vm-1/results/plan.json")
    jobs = [cell["job"] for cell in plan["cells"]]
    assert jobs == [{"kind": "count", "threads": 2, "increments": 3, "method": "add"}] * 4
    assert [cell["actual"] for cell in host.read("counter/report.json")["cells"]] == [[6]] * 4


def test_counts_that_were_lost_fail_a_counter(host: Host) -> None:
    host.play_cell("c/rust", *fakevm.count("failed", 5))
    assert host.call("counter") == ExitCode.TESTS_FAILED
    assert host.read("counter/report.json")["cells"][1]["actual"] == [5]


def test_of_several_repeats_one_whose_vm_is_lost_ends_none_of_the_others(host: Host) -> None:
    host.play("repeat-2/vm-1", ("exit", 1))
    assert host.call("counter", "--repeat", "3") == ExitCode.VM_LOST
    for cell in host.read("counter/report.json")["cells"]:
        assert cell["outcomes"] == ["passed", "lost", "passed"]
    assert host.call("counter", "--repeat", "1") == ExitCode.PASSED
    host.play("repeat-1/vm-1", ("exit", 1))
    assert host.call("counter") == ExitCode.VM_LOST


# -- bench ------------------------------------------------------------------------------------

#: The clones of a quick benchmark: one for each cell, and one for the yardsticks.
COUNTING = [f"bench/exact-1/vm-{number}" for number in range(1, 6)]


def test_a_benchmark_counts_and_times_every_cell(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*NAMES, "yardsticks/c"):
        host.play_cell(name, *fakevm.measure())
    assert host.call("bench", "--quick") == ExitCode.PASSED
    report = host.read("bench/report.json")
    assert report["exact"]["vms"] == 1
    assert report["exact"]["qemu"] == "QEMU emulator version 10.0.0"
    assert sorted(host.vms) == [*COUNTING, "bench/wall/vm-1"]
    assert report["wall"]["stalled_boots"] == 0
    assert report["builds"] == []
    assert capsys.readouterr().out
    assert not host.left


def test_a_benchmark_of_one_mode_boots_no_vm_for_the_other(host: Host) -> None:
    assert host.call("bench", "--quick", "--mode", "wall", "--parameters", "quiet") == 0
    assert host.vms == ["bench/wall/vm-1"]
    argv = host.started[-1]["argv"]
    assert argv[argv.index("-append") + 1].endswith(" quiet")


def test_exact_counts_are_of_every_cell_and_of_the_yardsticks(host: Host) -> None:
    assert host.call("bench", "--quick", "--mode", "exact") == ExitCode.PASSED
    report = host.read("bench/report.json")
    assert report["results"]
    assert report["yardsticks"]
    assert sorted(host.vms) == COUNTING


def test_a_whole_benchmark_times_builds(host: Host) -> None:
    assert host.call("bench", "--mode", "wall") == ExitCode.PASSED
    builds = host.read("bench/report.json")["builds"]
    assert [(build["module"], build["stripped_bytes"]) for build in builds] == [
        ("toy_c", 3),
        ("toy_rust", 3),
    ]


def test_counts_that_are_not_whole_end_a_benchmark(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.play_cell("c/c", *fakevm.measure(broken=True))
    assert host.call("bench", "--quick", "--mode", "exact") == ExitCode.VM_LOST
    assert "what a VM counted is not whole" in capsys.readouterr().err
    assert not host.left


# -- what there is ----------------------------------------------------------------------------


def test_the_matrix_shows_every_cell(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.call("matrix", "--json") == ExitCode.PASSED
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["module"], cell["tester"], cell["available"]) for cell in cells] == [
        (cell.module, cell.tester, True) for cell in CELLS
    ]


def test_setup_and_build_leave_modules_and_a_report(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.call("setup") == ExitCode.PASSED
    assert f"kernel   {fakevm.RELEASE}, version 7.3.4-1" in capsys.readouterr().out
    assert host.call("build") == ExitCode.PASSED
    assert [one["module"] for one in host.read("build/report.json")["products"]] == [
        "toy_c",
        "toy_rust",
    ]


def test_the_commands_of_a_build_are_shown_and_not_run(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.call("build", "--show") == ExitCode.PASSED
    shown = capsys.readouterr().out
    assert "# toy_c for 7.3.4-toy" in shown
    assert "M=samples/toy_rust modules" in shown


def test_a_project_that_lacks_a_part_is_refused_before_anything_is_made(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    (host.project_dir / "c_module/toy_c.c").write_text("int other;\n")
    (host.project_dir / "c_tester/pyproject.toml").unlink()
    assert host.call("test") == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "a tester's project is missing" in shown
    assert "module toy_c" not in shown


# -- a VM for a person ------------------------------------------------------------------------


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let standard input be a terminal."""
    isatty = os.isatty
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 0 or isatty(descriptor))


@pytest.mark.usefixtures("_terminal")
def test_a_shell_has_every_module_and_no_cell(host: Host) -> None:
    assert host.call("shell") == ExitCode.PASSED
    assert host.vms == ["shell"]
    plan = host.read("shell/results/plan.json")
    assert (plan["mode"], plan["cells"]) == ("shell", [])
    assert set(plan["modules"]) == {"toy_c", "toy_rust"}
    host.play("shell", ("exit", 1))
    assert host.call("shell") == ExitCode.VM_LOST


@pytest.mark.usefixtures("_terminal")
def test_a_shell_can_be_debugged_while_it_is_there(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.call("gdb") == ExitCode.USAGE
    assert host.call("shell", "--gdb") == ExitCode.PASSED
    assert "-gdb" in host.started[-1]["argv"]
    assert "in another terminal: twinmod gdb" in capsys.readouterr().err
    assert not (host.project_dir / "out/gdb/gdb.json").exists()
    assert host.call("gdb") == ExitCode.USAGE

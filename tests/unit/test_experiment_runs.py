# SPDX-License-Identifier: GPL-2.0-only
"""Runs of the zoo, the mutants and the layouts, from the command line to the report.

bwrap, and with it QEMU and every compiler, is a program that plays a script; everything else is as
it is in a run. See tests/fakevm.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import fakevm
from fakevm import BOOT, KILL, SILENCE, Host, MakeElf
from twinmod.errors import ExitCode

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Host:
    made = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    made.cold = False
    return made


@pytest.fixture
def _booting(host: Host) -> None:
    """Let every VM boot."""
    host.cold = True


@pytest.fixture(params=["cloned", "booting"])
def _both(request: pytest.FixtureRequest, host: Host) -> None:
    """Let VMs be cloned, and then not."""
    host.cold = request.param == "booting"


def load(monkeypatch: pytest.MonkeyPatch, path: str) -> ModuleType:
    """Load a script, which lies outside the package."""
    file_path = TESTS / path
    monkeypatch.syspath_prepend(str(file_path.parent))
    name = f"experiment_{file_path.stem}"
    spec = importlib.util.spec_from_file_location(name, file_path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


# -- the zoo ----------------------------------------------------------------------------------


def stop_all(host: Host) -> None:
    """Let everything of the zoo be stopped by what is expected to."""
    failing = fakevm.run_test("R1", "failed", "test_leak.py:3: 1 page is lost")
    host.play_cell("leak/c", fakevm.begin("leak/c"), *failing, fakevm.end("failed"))
    host.play_cell("misuse/c", fakevm.begin("misuse/c"), KILL)
    host.refuse("zoo_leak_rust")
    host.refuse("zoo_misuse_rust")


@pytest.mark.usefixtures("_both")
def test_the_zoo_says_of_each_attempt_what_stopped_it(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_all(host)
    assert host.call("zoo") == ExitCode.PASSED
    report = host.read("zoo/report.json")
    seen = {
        f"{entry['name']}/{variant}": (entry[variant]["stopped_by"], entry[variant]["by"])
        for entry in report["entries"]
        for variant in ("c", "rust")
    }
    assert seen == fakevm.ZOO
    assert (report["mismatches"], report["kernels"]) == ([], {"stock": fakevm.RELEASE})
    assert report["boots"] == len([path for path in host.vms if path.startswith("zoo")])
    assert "6 of 6 attempts stopped as expected" in capsys.readouterr().out
    matrix = {path.name for path in (host.project_dir / "out/zoo/tests").iterdir()}
    assert {"test_race.py", "conftest.py", "zoo_toy.py", "zoo_misuse_c"} <= matrix
    assert "zoo_misuse_rust" not in matrix
    assert any("-incoming" in one.get("argv", ()) for one in host.started) != host.cold
    assert not host.left


@pytest.mark.usefixtures("_booting")
def test_vms_of_the_zoo_that_boot_run_in_lanes_and_a_doubtful_cell_runs_again(host: Host) -> None:
    stop_all(host)
    assert host.call("zoo") == ExitCode.PASSED
    first = [f"zoo/runs/stock-1/attempt-1/lane-{lane}/vm-1" for lane in (1, 2)]
    assert sorted(host.vms) == [*first, "zoo/runs/stock-1/attempt-2/lane-1/vm-1"]


@pytest.mark.usefixtures("_booting")
def test_what_ends_a_vm_that_others_used_is_judged_by_how_it_ends_alone(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.refuse("zoo_misuse_rust")
    host.refuse("zoo_leak_rust")
    host.play("lane-2/vm-1", BOOT, ("cell", "race/c"), fakevm.begin("misuse/c"), KILL)
    assert host.call("zoo") == ExitCode.TESTS_FAILED
    assert "misuse/c: expected crash (lost), seen nowhere" in capsys.readouterr().out


def test_nothing_boots_for_attempts_that_no_compiler_takes(host: Host) -> None:
    host.refuse("zoo_leak_rust")
    assert host.call("zoo", "-k", "leak/rust") == ExitCode.PASSED
    assert host.vms == []


def test_a_refusal_by_a_compiler_is_remembered(host: Host) -> None:
    stop_all(host)
    assert host.call("zoo", "-k", "leak/rust") == ExitCode.PASSED
    host.lines["refusals"].clear()
    host.write()
    assert host.call("zoo", "-k", "leak/rust") == ExitCode.PASSED
    (host.project_dir / "zoo/leak/zoo_leak_rust.rs").write_text("// mended\n")
    assert host.call("zoo", "-k", "leak/rust") == ExitCode.TESTS_FAILED


def test_a_compiler_that_was_ended_before_its_last_word_refuses_nothing(host: Host) -> None:
    host.refuse("zoo_leak_rust", fakevm.REFUSAL.partition("error: aborting")[0])
    (host.project_dir / "zoo/leak/zoo_leak_rust.rs").write_text("// half\n")
    assert host.call("zoo", "-k", "leak/rust") == ExitCode.BUILD_FAILED
    host.refuse("zoo_leak_rust")
    assert host.call("zoo", "-k", "leak/rust") == ExitCode.PASSED


def test_an_attempt_that_something_else_stops_is_a_mismatch(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.call("zoo", "-k", "leak", "--module", "c") == ExitCode.TESTS_FAILED
    assert "leak/c: expected rule (R1), seen nowhere" in capsys.readouterr().out
    host.refuse("zoo_leak_c", "make: *** no rule\n")
    (host.project_dir / "zoo/leak/zoo_leak_c.c").write_text("// other\n")
    assert host.call("zoo", "-k", "leak", "--module", "c") == ExitCode.BUILD_FAILED


@pytest.mark.usefixtures("_booting")
def test_a_lane_of_the_zoo_whose_vm_does_not_boot_ends_the_others(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.play("lane-1/vm-1", ("exit", 1))
    host.play("lane-2/vm-1", SILENCE)
    assert host.call("zoo", "-k", "race") == ExitCode.VM_LOST
    assert "the VM ended before its first cell" in capsys.readouterr().err
    assert not host.left


# -- mutants ----------------------------------------------------------------------------------


@pytest.fixture
def mutate(host: Host) -> Callable[..., int]:
    """Return the verb on the toy project, whose modules are built."""
    assert host.call("build") == ExitCode.PASSED
    return lambda *words: host.call("mutate", *words)


def read_fates(host: Host) -> dict[str, tuple[str, list[str]]]:
    """Return what each mutant of the last run came to, and what caught it."""
    found = host.read("mutation/report.json")["mutants"]
    return {one["module"]: (one["outcome"], one["caught_by"]) for one in found}


@pytest.mark.usefixtures("_both")
def test_a_mutant_is_caught_by_its_rule_or_refused_with_its_error(
    host: Host, mutate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    failing = fakevm.run_test("R1", "failed", "test_toy.py:7: 1 != 2")
    host.play_cell("c/c/wrong", fakevm.begin("@CELL@"), *failing, fakevm.end("failed"))
    host.refuse("toy_rust")
    assert mutate() == ExitCode.PASSED
    assert read_fates(host) == {"c": ("caught", ["R1"]), "rust": ("refused", ["E0382"])}
    assert " s: 1 caught, 1 refused, 0 survived" in capsys.readouterr().out
    assert not any("all-tests" in path for path in host.vms)
    host.lines["refusals"].clear()
    host.write()
    assert mutate("--module", "rust") == ExitCode.PASSED, "a refusal is not remembered"


@pytest.mark.usefixtures("_booting")
def test_a_mutant_that_its_rules_let_pass_gets_all_tests(
    host: Host, mutate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    host.play_cell("rust/c/wrong", *fakevm.run_cell(outcome="failed", R2="failed"))
    assert mutate() == ExitCode.TESTS_FAILED
    assert read_fates(host) == {"c": ("survived", []), "rust": ("elsewhere", ["R2"])}
    assert "rust/wrong elsewhere: it is wrong" in capsys.readouterr().out
    names = ("originals", "own-rules-1", "all-tests-1")
    assert host.vms == [f"mutation/runs/{name}/attempt-1/lane-1/vm-1" for name in names]
    jobs = [
        [cell["job"] for cell in host.read(f"{path}/results/plan.json")["cells"]]
        for path in host.vms
    ]
    assert [[job["rules"] for job in one] for one in jobs] == [[[]] * 2, [["R1"]] * 2, [[]] * 2]
    limited = ["--maxfail=1"]
    assert [one[0]["pytest_args"] for one in jobs] == [limited, limited, []]


def test_a_build_that_fails_without_a_compilers_word_is_not_remembered(
    host: Host, mutate: Callable[..., int]
) -> None:
    host.refuse("toy_rust", "make: *** no rule\n")
    assert mutate("--module", "rust") == ExitCode.TESTS_FAILED
    assert read_fates(host) == {"rust": ("no build", [])}
    host.lines["refusals"].clear()
    host.write()
    assert mutate("--module", "rust") == ExitCode.TESTS_FAILED
    assert read_fates(host) == {"rust": ("survived", [])}


def test_no_mutant_is_judged_where_a_module_fails_without_a_fault(
    host: Host, mutate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    host.play_cell("c/c", *fakevm.run_cell(outcome="failed", R2="failed"))
    host.stall("toy_rust")
    assert mutate() == ExitCode.BUILD_FAILED
    assert "toy_c fails with no fault in it" in capsys.readouterr().err
    assert not host.left
    assert not (host.project_dir / "out/mutation/report.json").exists()


def test_a_mutant_that_no_longer_applies_is_refused_before_anything_runs(
    host: Host, mutate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (host.project_dir / "rust_module/toy_rust.rs").write_text("struct Moved;\n")
    assert mutate() == ExitCode.USAGE
    assert "mutant rust/wrong no longer applies" in capsys.readouterr().err
    assert host.vms == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("pyproject.toml", 'mutants = "mutants.toml"\n', ""), "the driver toy has no mutants"),
        (
            ("pyproject.toml", "mutants.toml", "gone.toml"),
            "the mutants cannot be read: No such file",
        ),
        (
            ("pyproject.toml", "mutants.toml", "matrix"),
            "the mutants cannot be read: Is a directory",
        ),
        (("mutants.toml", "[[fault.rust]]", "[[fault.ruts]]"), "fault wrong has an unknown key"),
        (
            ("mutants.toml", '"R1"', '"R8"'),
            "fault wrong names R8, which the driver's contract lacks",
        ),
    ],
)
def test_mutants_that_cannot_be_read_are_one_error(
    change: tuple[str, str, str], why: str, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    path, old, new = change
    text = (host.project_dir / path).read_text()
    assert text.count(old) == 1
    (host.project_dir / path).write_text(text.replace(old, new))
    assert host.call("mutate") == ExitCode.USAGE
    said = capsys.readouterr().err
    assert f"error: {why}" in said
    assert "Traceback" not in said
    assert host.vms == []


def test_a_module_that_the_driver_has_not_is_refused(
    mutate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutate("--module", "go") == ExitCode.USAGE
    assert "--module go names no module; there are: c, rust" in capsys.readouterr().err


def test_what_a_driver_needs_first_is_loaded_before_its_mutants(
    host: Host, mutate: Callable[..., int], make_elf: MakeElf
) -> None:
    fakevm.write_module(host.home_dir, "first", make_elf)
    folder = host.project_dir / "first"
    folder.mkdir()
    (folder / "first.c").write_text("int first;\n")
    path = host.project_dir / "pyproject.toml"
    key = 'mutants = "mutants.toml"\n'
    path.write_text(path.read_text().replace(key, f'{key}helpers = ["first"]\n'))
    host.cold = True
    assert mutate("--module", "c") == ExitCode.TESTS_FAILED
    plans = [host.read(f"{vm}/results/plan.json") for vm in host.vms]
    assert [[*plan["needed"]] for plan in plans] == [["first"]] * 3


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_while_mutants_are_built_ends_their_builds(
    host: Host, mutate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    host.stall("toy_c", interrupt=True)
    assert mutate() == ExitCode.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
    assert host.left == []
    host.lines["stalls"].clear()
    host.write()
    assert mutate() == ExitCode.TESTS_FAILED, "what was left keeps the next run from working"


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_while_a_mutant_runs_ends_the_builds_of_others(
    host: Host, mutate: Callable[..., int]
) -> None:
    begun = fakevm.begin("@CELL@")
    host.play_cell("c/c/wrong", begun, ("stalled", "toy_rust"), ("interrupt",), SILENCE)
    host.stall("toy_rust")
    assert mutate() == ExitCode.INTERRUPTED
    assert host.left == []


# -- layouts ----------------------------------------------------------------------------------


@pytest.fixture
def layouts(host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return the session's command, on the toy project, with fewer layouts and rules."""
    script = load(monkeypatch, "layouts/layouts.py")
    names = tuple(name.removeprefix("layout_") for name in fakevm.LAYOUTS)
    for name, value in {"LAYOUTS": names, "RULES": fakevm.RULES, "BOOTS": 1}.items():
        monkeypatch.setattr(script, name, value)
    return lambda *words: host.call_other(script.layouts, *words)


def read_rules(host: Host) -> dict[str, list[str]]:
    """Return how each layout did with each rule."""
    found = host.read("layouts/report.json")["layouts"]
    return {one["layout"]: [rule["outcome"] for rule in one["rules"]] for one in found}


@pytest.mark.usefixtures("_both")
def test_layouts_are_counted_and_held_to_each_rule(
    host: Host, layouts: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    host.play_cell("matrix one/c", *fakevm.run_cell(outcome="failed", R2="failed"))
    assert layouts() == ExitCode.PASSED
    good = ["passed", "passed"]
    assert read_rules(host) == {
        "toy_c": good,
        "toy_rust": good,
        "one": ["passed", "failed"],
        "two": good,
    }
    report = host.read("layouts/report.json")
    assert report["boots"] == len([path for path in host.vms if path.startswith("layouts")])
    assert [one["module"] for one in report["modules"]] == [
        *fakevm.MODULES.values(),
        *fakevm.LAYOUTS,
    ]
    assert report["layouts"][2]["costs"]
    assert "breaks" in capsys.readouterr().out
    assert not host.left


def test_a_twin_that_breaks_a_rule_fails_the_layouts(
    host: Host, layouts: Callable[..., int]
) -> None:
    host.play_cell("matrix toy_rust/c", *fakevm.run_cell(outcome="failed", R1="failed"))
    assert layouts() == ExitCode.TESTS_FAILED


def test_a_layout_that_does_not_compile_ends_the_run(
    host: Host, layouts: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (host.project_dir / "tests/layouts/layout_one.c").write_text("// broken\n")
    host.refuse("layout_two")
    assert layouts() == ExitCode.BUILD_FAILED
    assert "module layout_two did not build" in capsys.readouterr().err
    assert host.vms == []

# SPDX-License-Identifier: GPL-2.0-only
"""Verbs on a kernel that cannot have every module, and on several kernels of which some fail."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from twinmod.base import documents, process, templates
from twinmod.base.process import Command
from twinmod.base.sandbox import Chroot
from twinmod.bench import run as bench_run
from twinmod.bench.figures import Figure
from twinmod.builds import build as builds_build
from twinmod.builds import lint
from twinmod.builds.product import Product
from twinmod.cells import report as cells_report
from twinmod.cells import selection as cells_selection
from twinmod.cells.model import AnyCell, Cell, CellResult, TestResult
from twinmod.differential import run as differential_run
from twinmod.errors import (
    BuildError,
    ConfigError,
    ExitCode,
    MissingToolError,
    TwinmodError,
    VmLostError,
)
from twinmod.guest.protocol import Count, Operation, Outcome, Timing
from twinmod.kernels import find
from twinmod.kernels.model import Kernel, KernelTree
from twinmod.matrix import report, run
from twinmod.project import config as project_config
from twinmod.project.config import Config
from twinmod.project.model import Language
from twinmod.ui import cli, command
from twinmod.userland import entries, programs, testers
from twinmod.vm import boot, gdb, machine, recording, running, session, shell
from twinmod.workspace import Prepared, Workspace

REASON = "kernel 7.3.4+deb13-amd64 was built without Rust (CONFIG_RUST is not set)"
ABSENT = f"mdriver_rust is absent: {REASON}"


@dataclass
class World:
    """What verbs meet instead of chroots, compilers and VMs, and what they asked of it."""

    prepared: Prepared
    # By the name of a kernel, what its setup ends with.
    broken: dict[str, BaseException] = field(default_factory=dict)
    # Kernels that were built without Rust; None: all.
    without_rust: tuple[str, ...] | None = None
    set_up: list[str] = field(default_factory=list)
    linted: list[str] = field(default_factory=list)
    works: list[boot.Work] = field(default_factory=list)
    # What becomes of the next VM that runs cells, instead of that they pass.
    vms: list[Callable[[boot.CellsWork], tuple[CellResult, ...]]] = field(default_factory=list)

    def setup(self, config: Config) -> Prepared:
        name = config.kernel.name
        self.set_up.append(name)
        if name in self.broken:
            raise self.broken[name]
        tree = replace(self.prepared.tree, name=name)
        if self.without_rust is None or name in self.without_rust:
            tree = replace(tree, proof=replace(tree.proof, rustc=""))
        return replace(self.prepared, tree=tree)

    def build(self, plan: builds_build.BuildPlan, progress: object) -> Product:
        del progress
        return Product(
            module=plan.module.name,
            label=plan.module.label,
            language=plan.language or Language.C,
            path=plan.product_path,
            size_bytes=1,
            sha256="0" * 64,
            vermagic="",
            seconds=0.1,
            command="make",
            up_to_date=False,
        )

    def lint(self, plan: builds_build.BuildPlan, progress: object) -> None:
        del progress
        self.linted.append(plan.module.name)

    def run_cells(
        self,
        setting: object,
        work: boot.CellsWork,
        out_dir: Path,
        progress: object,
        talk: object = None,
    ) -> tuple[tuple[CellResult, ...], session.Boots]:
        del setting, out_dir, progress, talk
        self.works.append(work)
        if self.vms:
            return self.vms.pop(0)(work), session.Boots(total=1)
        return tuple(pass_cell(cell) for cell in work.cells), session.Boots(total=1)

    def run_shell(self, setting: object, work: boot.Work, out_dir: Path, progress: object) -> int:
        del setting, out_dir, progress
        self.works.append(work)
        return 0

    def measure(
        self, setting: object, work: boot.MeasureWork, boots: int, out_dir: Path, progress: object
    ) -> bench_run.Measured:
        del setting, boots, out_dir, progress
        self.works.append(work)
        figures = tuple(
            Figure(
                timing=Timing(operation=Operation.PREAD, size_bytes=1),
                cell=cell.name,
                load=1,
                user=90,
                kernel=100,
                minor_faults=0,
            )
            for cell in work.cells
        )
        results = tuple(pass_cell(cell) for cell in work.cells)
        return bench_run.Measured(results=results, figures=figures, boots=())


def pass_cell(cell: AnyCell) -> CellResult:
    count = Count(target=6, actual=6, real_s=0.5, user_s=0.1, system_s=0.1)
    return CellResult(cell=cell, outcome=Outcome.PASSED, count=count)


@pytest.fixture
def world(tmp_path: Path, root: Chroot, tree: KernelTree, monkeypatch: pytest.MonkeyPatch) -> World:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/.config").touch()
    tree = replace(tree, build_dir=tmp_path / "build")
    prepared = Prepared(
        chroot=root, tree=tree, site_dir=Path("/cache/site"), crates_dir=Path("/cache/crates")
    )
    made = World(prepared=prepared)
    setting = boot.Setting(
        tree=tree,
        chroot=root,
        vm=project_config.read_config(templates.find_shipped_dir()).vm,
        accelerator=machine.Accelerator(name=machine.AcceleratorName.TCG, reason="none"),
        userland=boot.Userland(
            site_dir=Path("/cache/site"), tester_dirs=(), programs_dir=Path("/cache/programs")
        ),
        version="0.1.0",
        native_dir=Path("/cache/native"),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOX_CURRENT_SESSION", raising=False)
    monkeypatch.setattr(Workspace, "setup", lambda workspace: made.setup(workspace.config))
    monkeypatch.setattr(Workspace, "environment", lambda *_: setting)
    monkeypatch.setattr(builds_build, "build", made.build)
    monkeypatch.setattr(lint, "lint", made.lint)
    monkeypatch.setattr(running, "run_cells", made.run_cells)
    monkeypatch.setattr(shell, "run_shell", made.run_shell)
    monkeypatch.setattr(Workspace, "find_clones", lambda _, setting: setting)
    monkeypatch.setattr(shell, "require_terminal", lambda: None)
    monkeypatch.setattr(bench_run, "measure", made.measure)
    monkeypatch.setattr(bench_run, "read_qemu_version", lambda _: "QEMU 10")
    monkeypatch.setattr(testers, "lint", lambda *_: None)
    return made


def call(*arguments: str) -> int:
    return cli.run_guarded(lambda: cli.cli(list(arguments), standalone_mode=False))


# -- a driver without testers -----------------------------------------------------------------


def test_a_driver_without_testers_has_none_to_check(world: World) -> None:
    Path("echo").mkdir()
    Path("echo/echo.c").touch()
    Path("VERSION").write_text("1.0\n")
    Path("twinmod.toml").write_text('[drivers.echo.modules]\nc = "echo"\n')
    assert call("lint-kernel") == ExitCode.PASSED
    assert world.linted == ["echo"]


# -- a kernel without Rust --------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("build",),
        ("build", "c", "rust"),
        ("counter",),
        ("counter", "--repeat", "3"),
        ("bench", "--quick", "--mode", "exact"),
        ("shell",),
        ("lint-kernel",),
        ("lint-kernel", "--kernel", "trixie"),
    ],
)
def test_a_verb_says_what_a_kernel_cannot_have_and_does_the_rest(
    arguments: tuple[str, ...], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == ExitCode.PASSED
    shown = capsys.readouterr()
    assert shown.err.count(ABSENT) == 1
    assert "mdriver_rust" not in shown.out
    for work in world.works:
        assert {product.module for product in work.products} == {"mdriver_c"}
        cells = () if isinstance(work, boot.ShellWork) else work.cells
        assert "rust" not in {cell.label for cell in cells if isinstance(cell, Cell)}


@pytest.mark.parametrize("verb", ["counter", "bench"])
def test_a_report_names_the_cells_that_are_absent(
    verb: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    del world
    options = ("--quick", "--mode", "exact") if verb == "bench" else ()
    assert call(verb, *options, "--json") == ExitCode.PASSED
    document = json.loads(capsys.readouterr().out)
    assert [(a["module"], a["tester"]) for a in document["absent"]] == [
        ("mdriver_rust", "c"),
        ("mdriver_rust", "rust"),
    ]
    assert all("built without Rust" in a["reason"] for a in document["absent"])
    assert json.loads(Path("out", verb, "report.json").read_text()) == document


def test_the_kernels_checks_are_made_of_what_it_can_have(world: World) -> None:
    assert call("lint-kernel") == ExitCode.PASSED
    assert world.linted == ["mdriver_c"]


def test_what_alone_was_asked_for_and_cannot_be_is_refused(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("build", "rust") == ExitCode.USAGE
    shown = capsys.readouterr()
    assert f"\nerror: nothing is left to do: {REASON}\n" in shown.err
    assert not shown.out
    assert not list(Path("out/build").glob("*"))
    assert world.set_up == ["trixie-backports"]


def test_a_debugger_sees_what_the_kernel_can_have(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []

    def plan_gdb(sight: gdb.Sight) -> tuple[str, ...]:
        seen.append(tuple(build.module.name for build in sight.builds))
        return ("gdb",)

    monkeypatch.setattr(gdb, "require_debugger", lambda *_: None)
    monkeypatch.setattr(gdb, "plan_gdb", plan_gdb)
    assert call("shell", "--gdb") == ExitCode.PASSED
    assert seen == [("mdriver_c",)]
    (work,) = world.works
    assert isinstance(work, boot.ShellWork)
    assert work.gdb


def test_a_recording_on_a_kernel_without_rust_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = recording.Comparison(lines={"events.jsonl": 3}, different={})
    recorded = recording.Recording(
        vm_dir=Path("vm-1"),
        document=recording.RecordingDocument(
            kernel="trixie",
            tree="stock-1",
            chroot="trixie-1",
            qemu=(),
            modules={"mdriver_c": "0" * 64},
        ),
    )

    @contextmanager
    def run_vm(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(lines=[])

    monkeypatch.setattr(recording, "read_recording", lambda _: recorded)
    monkeypatch.setattr(recording, "prepare_replay", lambda *_, **__: None)
    monkeypatch.setattr(recording, "read_comparison", lambda *_: same)
    monkeypatch.setattr(session, "run_vm", run_vm)
    assert call("replay", "vm-1") == ExitCode.PASSED
    assert world.set_up == ["trixie"]


def test_the_differential_alone_goes_on_with_the_modules_that_there_are(
    world: World, progress: Any, told: list[str]
) -> None:
    workspace = Workspace(config=command.State().workspace.config, progress=progress)
    prepared = world.setup(workspace.config)
    _, work = differential_run.prepare_alone(workspace, prepared, Path("out/soak"), 60)
    assert [product.module for product in work.products] == ["mdriver_c"]
    assert any(line.startswith(ABSENT) for line in told)


# -- a rule that no test is for ---------------------------------------------------------------


@pytest.mark.parametrize("others", [(), ("--rule", "R4")])
def test_a_rule_without_a_test_is_refused_before_a_module_is_built(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    others: tuple[str, ...],
) -> None:
    def collect(command: Command) -> tuple[int, str]:
        return (0 if "R4" in command.argv else programs.NO_TESTS), ""

    made = SimpleNamespace(ensure=lambda _: SimpleNamespace(path=Path("/cache/programs")))
    monkeypatch.setattr(entries, "prepare_programs", lambda *_: made)
    monkeypatch.setattr(process, "run_unchecked", collect)
    built: list[builds_build.BuildPlan] = []
    monkeypatch.setattr(builds_build, "build", lambda plan, _: built.append(plan))
    assert call("test", *others, "--rule", "R25") == ExitCode.USAGE
    assert '/tests/matrix is marked @pytest.mark.rule("R25")' in capsys.readouterr().err
    assert built == []
    assert world.works == []


# -- repeats ----------------------------------------------------------------------------------


def lose(work: boot.CellsWork) -> tuple[CellResult, ...]:
    del work
    raise VmLostError("the VM fell silent before its first cell")


def test_a_repeat_whose_vm_does_not_boot_ends_none_of_the_others(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    good = lambda work: tuple(map(pass_cell, work.cells))  # noqa: E731
    world.vms = [good, lose, good]
    assert call("counter", "--repeat", "3") == ExitCode.VM_LOST
    (cell, _) = json.loads(Path("out/counter/report.json").read_text())["cells"]
    assert cell["outcomes"] == ["passed", "lost", "passed"]
    assert cell["real_s"] == [0.5, 0.5]
    assert "c/c lost: the VM fell silent" in capsys.readouterr().out


def test_a_counter_without_repeats_ends_as_its_vm_does(world: World) -> None:
    world.vms = [lose]
    assert call("counter") == ExitCode.VM_LOST
    assert not Path("out/counter/report.json").exists()


# -- several kernels --------------------------------------------------------------------------


@pytest.fixture
def matrix(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which the matrix passes, but for one test of R9 on sid."""

    def run_test(workspace: Workspace, prepared: Prepared, wanted: run.Wanted) -> run.Run:
        config = workspace.config
        selected = wanted.selection.plan_cells(config)
        cells, absent = cells_selection.plan_presence(
            selected, workspace.find_absences(prepared.tree)
        )
        outcome = "failed" if config.kernel.name == "sid" else "passed"
        test = TestResult(id="test_x", rules=("R9",), outcome=Outcome(outcome), duration_s=0.1)
        found = tuple(
            CellResult(cell=cell, outcome=Outcome(outcome), tests=(test,)) for cell in cells
        )
        totals = {"passed": 0, "failed": 0, "skipped": len(absent), outcome: len(cells)}
        accelerator = machine.Accelerator(name=machine.AcceleratorName.TCG, reason="")
        document = report.plan_test_report(
            report.Machine(tree=prepared.tree, accelerator=accelerator, memory_mib=1024),
            (),
            report.Scope(),
            report.Findings(results=found, absent=absent, totals=cells_report.plan_totals(totals)),
            report.ResourceUsage(boots=session.Boots(total=1)),
        )
        documents.write(wanted.out_dir / "report.json", document)
        return run.Run(results=found, document=document, rules=(("R9", "Memory"),))

    monkeypatch.setattr(run, "run_test", run_test)
    world.without_rust = ("trixie",)
    return world


KERNELS = [
    "trixie-backports",
    "trixie-backports-72",
    "trixie",
    "sid",
    "kasan",
    "kcsan",
    "enforcing",
]


def test_each_kernel_is_tested_whatever_became_of_the_others(
    matrix: World, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix.broken = {
        "trixie-backports": MissingToolError("the mirror cannot be reached", hint="wait"),
        "kasan": BuildError("the kernel did not build", facts=(("log", "make.log"),)),
        "kcsan": PermissionError(13, "Permission denied", "/cache/kernel"),
    }
    code = call("test", "--kernel", "all", "--module", "rust")
    assert matrix.set_up == KERNELS
    assert code == ExitCode.ENVIRONMENT
    document = json.loads(Path("out/test/report.json").read_text())
    outcomes = {one["kernel"]: one["outcome"] for one in document["kernels"]}
    assert outcomes == {
        "trixie-backports": "failed",
        "trixie-backports-72": "tested",
        "trixie": "absent",
        "sid": "tested",
        "kasan": "failed",
        "kcsan": "failed",
        "enforcing": "tested",
    }
    assert len(document["runs"]) == 3
    assert document["totals"] == {"passed": 4, "failed": 2 + 3, "skipped": 2}
    kasan = next(one for one in document["kernels"] if one["kernel"] == "kasan")
    assert kasan["error"] == {
        "exit_code": 4,
        "message": "the kernel did not build",
        "facts": [["log", "make.log"]],
        "hint": "",
    }
    trixie = next(one for one in document["kernels"] if one["kernel"] == "trixie")
    assert [a["tester"] for a in trixie["absent"]] == ["c", "rust"]
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-8:] == [
        "trixie-backports     FAILED: the mirror cannot be reached",
        "trixie-backports-72  2 passed, 0 failed, 0 skipped",
        f"trixie               absent: {REASON}",
        "sid                  0 passed, 2 failed, 0 skipped",
        "kasan                FAILED: the kernel did not build",
        "kcsan                FAILED: the system refused: Permission denied",
        "enforcing            2 passed, 0 failed, 0 skipped",
        "4 passed, 5 failed, 2 skipped",
    ]
    assert "kernel kasan: error: the kernel did not build\n  log: make.log" in shown.err


def test_tests_that_failed_are_the_code_when_every_kernel_was_tested(matrix: World) -> None:
    del matrix
    assert call("test", "--kernel", "all") == ExitCode.TESTS_FAILED


def test_one_json_document_has_all_kernels(
    matrix: World, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix.broken = {"sid": BuildError("no")}
    assert call("test", "--kernel", "all", "--json") == ExitCode.BUILD_FAILED
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(Path("out/test/report.json").read_text())
    assert (len(document["runs"]), len(document["kernels"])) == (6, 7)


def test_a_selection_that_no_kernel_can_have_is_refused_after_the_report(
    matrix: World, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix.without_rust = None
    assert call("test", "--kernel", "all", "--module", "rust") == ExitCode.USAGE
    assert "no kernel can have any of the selected cells" in capsys.readouterr().err
    document = json.loads(Path("out/test/report.json").read_text())
    assert {one["outcome"] for one in document["kernels"]} == {"absent"}


def test_an_interruption_ends_the_run_on_every_kernel(matrix: World) -> None:
    matrix.broken = {"trixie": KeyboardInterrupt()}
    assert call("test", "--kernel", "all") == ExitCode.INTERRUPTED
    assert matrix.set_up == KERNELS[:3]


def test_an_error_of_the_only_kernel_is_the_commands_own(
    matrix: World, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix.broken = {"sid": BuildError("the crates did not build")}
    assert call("test", "--kernel", "sid") == ExitCode.BUILD_FAILED
    assert capsys.readouterr().err.splitlines()[1:] == ["error: the crates did not build"]
    assert not Path("out/test/report.json").exists()


def test_each_kernel_is_set_up_whatever_became_of_the_others(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.broken = {"trixie": MissingToolError("no network"), "sid": ConfigError("no such suite")}
    assert call("setup", "--kernel", "all") == ExitCode.USAGE
    assert world.set_up == KERNELS
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "5 of 7 kernels are set up; failed: trixie sid"
    assert "kernel trixie: error: no network" in shown.err


def test_each_kernels_checks_are_made_whatever_became_of_the_others(world: World) -> None:
    world.broken = {"trixie": MissingToolError("no network")}
    assert call("lint-kernel", "--kernel", "all") == ExitCode.ENVIRONMENT
    assert world.set_up == KERNELS
    assert world.linted == ["mdriver_c"] * 6


def test_a_tree_that_cannot_be_read_hides_no_other_kernel(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look_for_tree(kernel: Kernel, **_: object) -> tuple[KernelTree | None, TwinmodError]:
        if kernel.spec.name == "sid":
            raise PermissionError(13, "Permission denied", "/home/somebody/linux")
        return world.prepared.tree, TwinmodError("")

    monkeypatch.setattr(find, "look_for_tree", look_for_tree)
    assert call("matrix") == ExitCode.PASSED
    out = capsys.readouterr().out
    assert "sid c/c c/rust rust/c rust/rust: kernel sid cannot be read: Permission denied" in out
    assert out.count(world.prepared.tree.release) == len(KERNELS) - 1


# -- what a failing run says ------------------------------------------------------------------


def test_a_failing_run_says_how_to_run_just_its_rules_again(
    matrix: World, capsys: pytest.CaptureFixture[str]
) -> None:
    del matrix
    code = call("test", "--kernel", "sid", "--module", "c", "--long", "--memory", "512")
    assert code == ExitCode.TESTS_FAILED
    again = "run again: twinmod test --rule R9 --module c --kernel sid --long --memory 512"
    assert again in capsys.readouterr().out.splitlines()


def test_a_passing_run_says_nothing_of_that(
    matrix: World, capsys: pytest.CaptureFixture[str]
) -> None:
    del matrix
    assert call("test") == ExitCode.PASSED
    assert "run again" not in capsys.readouterr().out

# SPDX-License-Identifier: GPL-2.0-only
"""The zoo's acts: build every attempt, run what compiles on the kernel that fits, judge it."""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import msgspec

from twinmod import errors
from twinmod.base import documents, each, parallel, process, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.builds import build
from twinmod.errors import BuildError, ConfigError, TwinmodError
from twinmod.experiments import engine, variants, zoo
from twinmod.experiments.engine import Bench, Built, Ran, Step
from twinmod.experiments.variants import Shown
from twinmod.experiments.zoo import Attempt, Entry, KernelRun, Verdict, ZooReport
from twinmod.project.config import Config
from twinmod.project.model import Language
from twinmod.vm import boot
from twinmod.workspace import Prepared, Workspace

#: What a compiler may take for a program.
PROGRAM_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooRun:
    """A finished run."""

    verdicts: tuple[Verdict, ...]
    document: ZooReport
    seconds: float
    # By the name of a kernel, what its setup or its VMs failed with.
    failed: Mapping[str, TwinmodError]


def read_entries(config: Config) -> tuple[Entry, ...]:
    """Return all entries of a project's zoo, by name.

    Raises:
        ConfigError: There is none, or one of them is not valid or lacks a file.
    """
    zoo_dir = config.root_dir / "zoo"
    paths = sorted(zoo_dir.glob("*/zoo.toml"))
    if not paths:
        raise ConfigError(
            "the zoo is empty: no zoo/NAME/zoo.toml", facts=(("folder", str(zoo_dir)),)
        )
    entries = tuple(zoo.parse_entry(path.parent.name, path.read_bytes()) for path in paths)
    for entry in entries:
        names = (f"test_{entry.name}.py", *(attempt.file_name for attempt in entry.attempts))
        missing = [name for name in names if not (zoo_dir / entry.name / name).is_file()]
        if missing:
            raise ConfigError(f"zoo/{entry.name} lacks {', '.join(missing)}")
    return entries


# -- build ------------------------------------------------------------------------------------


def prepare_build(config: Config, prepared: Prepared, attempt: Attempt) -> build.BuildPlan:
    """Plan the build of an attempt's module, in a stage of its own."""
    path = config.root_dir / "zoo" / attempt.entry / attempt.file_name
    sources = ((path.name, path.read_bytes()),)
    return build.plan_build(
        zoo.plan_module(attempt), prepared.tree, sources, config.out_dir / "zoo"
    )


def plan_program(attempt: Attempt, root: Chroot, source_dir: Path, out_dir: Path) -> Command:
    """Return what compiles an attempt that is a program, with the chroot's compilers."""
    source, target = sandbox.INSIDE / "source", sandbox.INSIDE / "target"
    names = (str(source / attempt.file_name), "-o", str(target / attempt.stem))
    argv = {
        Language.C: ("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *names),
        Language.RUST: ("rustc", "--edition", "2021", "-O", *names),
    }[attempt.language]
    binds = (
        Bind(source_path=source_dir, target_path=PurePosixPath(source)),
        Bind(source_path=out_dir, target_path=PurePosixPath(target), writable=True),
    )
    return sandbox.plan_command(
        root,
        argv,
        Enter(binds=binds),
        purpose=f"program {attempt.stem} did not build",
        timeout_s=PROGRAM_TIMEOUT_S,
    )


def build_program(workspace: Workspace, root: Chroot, attempt: Attempt) -> str:
    """Compile an attempt that is a program; return the compiler's words when it refuses."""
    out_dir = find_programs_dir(workspace.config)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / attempt.stem).unlink(missing_ok=True)
    source_dir = workspace.config.root_dir / "zoo" / attempt.entry
    command = plan_program(attempt, root, source_dir, out_dir)
    try:
        with workspace.progress.phase(f"program {attempt.stem}"):
            process.run(replace(command, tail_lines=build.COMPILER_LINES))
    except BuildError as error:
        return engine.find_refusal(error)
    return ""


def find_programs_dir(config: Config) -> Path:
    """Return the folder of the attempts that are programs."""
    return config.out_dir / "zoo/programs"


def prepare_programs(
    workspace: Workspace, prepared: Prepared, attempts: tuple[Attempt, ...]
) -> dict[Attempt, Built]:
    """Compile the attempts that are programs, which run on a module without the bug."""
    words = {
        attempt: build_program(workspace, prepared.chroot, attempt)
        for attempt in attempts
        if attempt.space == zoo.Space.USER
    }
    needed = not all(words.values())
    labels = workspace.find_labels(prepared.tree)
    drivers = {p.language: p for p in workspace.build(prepared, labels)} if needed else {}
    return {
        attempt: Built(words=refusal) if refusal else Built(product=drivers[attempt.language])
        for attempt, refusal in words.items()
    }


def prepare_jobs(
    workspace: Workspace, prepared: Prepared, attempts: tuple[Attempt, ...]
) -> dict[Attempt, Callable[[], Built]]:
    """Return what builds each attempt, in the order in which they run; programs are built."""
    programs = prepare_programs(workspace, prepared, attempts)
    jobs: dict[Attempt, Callable[[], Built]] = {}
    for attempt in variants.plan_order(attempts):
        if attempt in programs:
            jobs[attempt] = engine.plan_built(programs[attempt])
        else:
            plan = prepare_build(workspace.config, prepared, attempt)
            jobs[attempt] = partial(engine.build_or_refuse, plan)
    return jobs


# -- run --------------------------------------------------------------------------------------


def write_tests(config: Config, attempts: Iterable[Attempt]) -> Path:
    """Write the folder that a VM takes for the matrix: the tests of attempts, and programs."""
    zoo_dir = config.root_dir / "zoo"
    tests_dir = config.out_dir / "zoo/tests"
    shutil.rmtree(tests_dir, ignore_errors=True)
    tests_dir.mkdir(parents=True)
    entries = dict.fromkeys(attempt.entry for attempt in attempts)
    programs = (find_programs_dir(config) / a.stem for a in attempts if a.space == zoo.Space.USER)
    paths = (
        zoo_dir / "conftest.py",
        *sorted((zoo_dir / "support").glob("*.py")),
        *(zoo_dir / name / f"test_{name}.py" for name in entries),
        *(path for path in programs if path.exists()),
    )
    for path in paths:
        shutil.copy(path, tests_dir)
    return tests_dir


def prepare_setting(
    workspace: Workspace, prepared: Prepared, attempts: tuple[Attempt, ...]
) -> boot.Setting:
    """Return what every VM is made of: as for the matrix, with other tests."""
    tests_dir = write_tests(workspace.config, attempts)
    config = msgspec.structs.replace(workspace.config, matrix_dir=tests_dir)
    setting = replace(workspace, config=config).environment(prepared)
    return workspace.prepare_clones(prepared, setting)


def run_kernel(workspace: Workspace, attempts: tuple[Attempt, ...], name: str) -> KernelRun:
    """Build and run the attempts of one kernel; those that it cannot have are absent.

    Args:
        workspace: With that kernel.
        attempts: Those of it.
        name: What the zoo calls it.
    """
    config, prepared = workspace.config, workspace.setup()
    reasons = {a: build.find_language_absence(a.language, prepared.tree) for a in attempts}
    absent = {attempt: reason for attempt, reason in reasons.items() if reason}
    present = tuple(attempt for attempt in attempts if attempt not in absent)
    racing = name == zoo.RACING
    bench = Bench(
        prepare=partial(prepare_setting, workspace, prepared, present),
        limit_s=config.vm.test_timeout_s,
        out_dir=config.out_dir / "zoo/runs",
        progress=workspace.progress,
        lanes=parallel.plan_count(len(present), racing=racing),
        racing=racing,
    )
    step: Step[Attempt] = Step(
        name=name, plan_cell=lambda attempt, product: zoo.plan_cell(attempt, product.module)
    )
    with engine.start_builds(prepare_jobs(workspace, prepared, present)) as builds:
        found = engine.run_steps(bench, builds, (step,))
    return KernelRun(
        verdicts=tuple(judge(attempt, ran) for attempt, ran in found.items()),
        absent=absent,
        release=prepared.tree.release,
        boots=sum(boots.total for boots in bench.boots),
    )


def judge(attempt: Attempt, ran: Ran) -> Verdict:
    """Return what stopped an attempt."""
    if not ran.results:
        return zoo.judge_refusal(attempt, ran.built.words)
    return zoo.judge(attempt, ran.results[0])


def run_zoo(
    workspace: Workspace, entries: tuple[Entry, ...], attempts: tuple[Attempt, ...]
) -> ZooRun:
    """Build and run attempts, kernel by kernel; write the report.

    Raises:
        ConfigError: The kernels can have none of the attempts.
        TwinmodError: A step that is no attempt's doing failed.
    """
    began = time.monotonic()
    out_dir = workspace.out_dir / "zoo"
    shutil.rmtree(out_dir / "runs", ignore_errors=True)

    def act(name: str) -> KernelRun:
        chosen = workspace if name == zoo.STOCK else workspace.select(name)
        own = tuple(attempt for attempt in attempts if attempt.kernel == name)
        return run_kernel(chosen, own, name)

    names = dict.fromkeys(attempt.kernel for attempt in attempts)
    runs, failed = each.run_each(
        {name: partial(act, name) for name in names},
        lambda name, error: workspace.progress.note(f"kernel {name}: {errors.render_error(error)}"),
    )
    verdicts = {v.attempt: v for run in runs.values() for v in run.verdicts}
    if not verdicts and not failed:
        reasons = dict.fromkeys(why for run in runs.values() for why in run.absent.values())
        raise ConfigError(f"nothing is left to do: {'; '.join(reasons)}")
    ordered = tuple(verdicts[attempt] for attempt in attempts if attempt in verdicts)
    seconds = time.monotonic() - began
    document = zoo.plan_report(entries, ordered, runs, failed, seconds)
    documents.write(out_dir / "report.json", document)
    return ZooRun(verdicts=ordered, document=document, seconds=seconds, failed=failed)


def plan_shown(run: ZooRun) -> Shown:
    """Return what a person gets of a run."""
    document = run.document
    return Shown(
        document=document,
        table=zoo.render_table(run.verdicts),
        troubles=zoo.render_troubles(run.verdicts),
        notes=(
            *(f"{absent.attempt} is absent: {absent.reason}" for absent in document.absent),
            *(f"kernel {name} FAILED: {error.message}" for name, error in run.failed.items()),
        ),
        totals=zoo.render_totals(run.verdicts, run.seconds),
        exit_code=variants.compare_exit_codes(
            run.verdicts, *(error.exit_code for error in run.failed.values())
        ),
    )

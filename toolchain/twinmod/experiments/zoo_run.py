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
from twinmod.base.documents import Part
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.builds import build, signing
from twinmod.builds.product import Product
from twinmod.cells.model import CellResult
from twinmod.errors import BuildError, ConfigError, TwinmodError
from twinmod.experiments import zoo
from twinmod.experiments.zoo import Attempt, Entry, KernelRun, Verdict, ZooReport
from twinmod.project.config import Config
from twinmod.project.model import Language
from twinmod.vm import boot, results, session
from twinmod.vm import running as vm_running
from twinmod.workspace import Prepared, Workspace

#: What a lane of VMs comes to: as guest.run_cells has it.
Ended = tuple[tuple[CellResult, ...], session.Boots]

#: A compiler's last words on an attempt that it refused, beside the attempt's stage.
REFUSAL = ".twinmod.refused.json"

#: What a compiler may take for a program.
PROGRAM_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What became of an attempt in the compiler's hands."""

    attempt: Attempt
    # None: it was refused, or is a program.
    product: Product | None = None
    program_path: Path | None = None
    # The compiler's words when it refused.
    words: str = ""

    @property
    def runs(self) -> bool:
        """Whether there is something to run."""
        return bool(self.product or self.program_path)


class Refusal(Part, frozen=True, kw_only=True):
    """The record of an attempt that did not compile."""

    # Of the plan of its build.
    digest: str
    # The compiler's.
    words: str


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


def build_module(plan: build.BuildPlan, attempt: Attempt, progress: Progress) -> Built:
    """Build an attempt's module; a refusal is a result, and is remembered as a product is."""
    refusal_path = plan.stage_dir / REFUSAL
    words = read_refusal(refusal_path, plan.digest)
    if words:
        return Built(attempt=attempt, words=words)
    try:
        return Built(attempt=attempt, product=build.build(plan, progress))
    except BuildError as error:
        words = find_words(error)
        documents.write(refusal_path, Refusal(digest=plan.digest, words=words))
        return Built(attempt=attempt, words=words)


def sign(prepared: Prepared, built: Built) -> Built:
    """Return an attempt whose module, if there is one, is as its kernel takes it."""
    if built.product is None:
        return built
    return replace(built, product=signing.sign_product(prepared.tree, built.product))


def read_refusal(path: Path, digest: str) -> str:
    """Return the compiler's words on exactly the same attempt, "" when there are none."""
    try:
        record = documents.parse_part(path.read_bytes(), Refusal)
    except (OSError, *documents.INVALID):
        return ""
    return record.words if record.digest == digest else ""


def find_words(error: BuildError) -> str:
    """Return a compiler's words in the error that it made.

    Raises:
        BuildError: It refused nothing: something else went wrong.
    """
    words = dict(error.facts).get("output", "")
    if not zoo.parse_compiler_errors(words):
        raise error
    return words


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


def build_program(workspace: Workspace, root: Chroot, attempt: Attempt) -> Built:
    """Compile an attempt that is a program; a refusal is a result."""
    out_dir = workspace.out_dir / "zoo/programs"
    out_dir.mkdir(parents=True, exist_ok=True)
    source_dir = workspace.config.root_dir / "zoo" / attempt.entry
    command = plan_program(attempt, root, source_dir, out_dir)
    try:
        with workspace.progress.phase(f"program {attempt.stem}"):
            process.run(replace(command, tail_lines=build.COMPILER_LINES))
    except BuildError as error:
        return Built(attempt=attempt, words=find_words(error))
    return Built(attempt=attempt, program_path=out_dir / attempt.stem)


def build_attempts(
    workspace: Workspace, prepared: Prepared, attempts: Iterable[Attempt]
) -> tuple[Built, ...]:
    """Build the attempts that run on one kernel."""

    def build_one(attempt: Attempt) -> Built:
        if attempt.space == zoo.Space.USER:
            return build_program(workspace, prepared.chroot, attempt)
        plan = prepare_build(workspace.config, prepared, attempt)
        return sign(prepared, build_module(plan, attempt, workspace.progress))

    return tuple(map(build_one, attempts))


# -- run --------------------------------------------------------------------------------------


def write_tests(config: Config, entries: Iterable[str], built: Iterable[Built]) -> Path:
    """Write the folder that a VM takes for the matrix: the tests of entries, and programs."""
    zoo_dir = config.root_dir / "zoo"
    tests_dir = config.out_dir / "zoo/tests"
    shutil.rmtree(tests_dir, ignore_errors=True)
    tests_dir.mkdir(parents=True)
    paths = [
        zoo_dir / "conftest.py",
        *sorted((zoo_dir / "support").glob("*.py")),
    ]
    paths += [zoo_dir / name / f"test_{name}.py" for name in entries]
    paths += [b.program_path for b in built if b.program_path]
    for path in paths:
        shutil.copy(path, tests_dir)
    return tests_dir


def prepare_setting(workspace: Workspace, prepared: Prepared, tests_dir: Path) -> boot.Setting:
    """Return what every VM is made of: as for the matrix, with other tests."""
    config = msgspec.structs.replace(workspace.config, matrix_dir=tests_dir)
    return replace(workspace, config=config).environment(prepared)


def run_kernel(workspace: Workspace, attempts: tuple[Attempt, ...], name: str) -> KernelRun:
    """Build and run the attempts of one kernel; those that it cannot have are absent.

    Args:
        workspace: With that kernel.
        attempts: Those of it.
        name: What the zoo calls it.
    """
    prepared = workspace.setup()
    reasons = {a: build.find_absence(a.language, prepared.tree) for a in attempts}
    absent = {attempt: reason for attempt, reason in reasons.items() if reason}
    present = tuple(attempt for attempt in attempts if attempt not in absent)
    built = build_attempts(workspace, prepared, zoo.plan_order(present))
    running = tuple(b for b in built if b.runs)
    verdicts = tuple(zoo.judge_refusal(b.attempt, b.words) for b in built if not b.runs)
    total = 0
    if running:
        found, total = run_built(workspace, prepared, running, name)
        verdicts += found
    return KernelRun(verdicts=verdicts, absent=absent, release=prepared.tree.release, boots=total)


def run_built(
    workspace: Workspace, prepared: Prepared, running: tuple[Built, ...], name: str
) -> tuple[tuple[Verdict, ...], int]:
    """Run what was built, in lanes of VMs; return verdicts, and how many VMs they were."""
    config = workspace.config
    products = tuple(b.product for b in running if b.product)
    if any(b.program_path for b in running):
        products += workspace.build(prepared, build.find_languages(prepared.tree))
    drivers = {module.language: module.name for module in config.modules}
    cells = {b.attempt: zoo.plan_cell(b.attempt, drivers) for b in running}
    tests_dir = write_tests(config, dict.fromkeys(a.entry for a in cells), running)
    setting = prepare_setting(workspace, prepared, tests_dir)
    work = boot.MatrixWork(cells=(), products=products, limit_s=config.vm.test_timeout_s)
    runs_dir = config.out_dir / "zoo/runs" / name
    count = parallel.plan_count(len(cells), racing=name == zoo.RACING)

    def plan_lane(number: int) -> Callable[[Progress], Ended]:
        own = replace(work, cells=tuple(cells.values())[number::count])
        out_dir = runs_dir / f"lane-{number + 1}"
        return lambda progress: vm_running.run_cells(setting, own, out_dir, progress)

    names = results.render_names(tuple(cells.values()))
    title = f"VMs ({setting.accelerator.name}), {count} at a time: {names}"
    lanes = tuple(plan_lane(number) for number in range(count))
    found = parallel.run_all(lanes, title, workspace.progress)
    by_cell = {result.cell: result for ended, _ in found for result in ended}
    verdicts = tuple(zoo.judge(a, by_cell[cell]) for a, cell in cells.items())
    return verdicts, sum(boots.total for _, boots in found)


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

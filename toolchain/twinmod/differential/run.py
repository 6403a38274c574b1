# SPDX-License-Identifier: GPL-2.0-only
"""The verbs of the differential: as the last cell of a run, soak, and a script again."""

import shutil
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from twinmod.base import cache, commands, documents
from twinmod.base.documents import Document
from twinmod.builds.product import Product
from twinmod.cells import differences, report
from twinmod.cells.differences import DifferenceEntry
from twinmod.cells.model import CellResult, DifferentialCell
from twinmod.cells.report import ModuleEntry
from twinmod.cells.selection import Selection
from twinmod.differential import corpus as differential_corpus
from twinmod.differential import explorer as differential_explorer
from twinmod.differential import report as differential_report
from twinmod.differential import reproduce as differential_reproduce
from twinmod.differential import scripts
from twinmod.differential.report import DifferentialReport
from twinmod.errors import ConfigError
from twinmod.guest.protocol import Outcome
from twinmod.kernels import model
from twinmod.kernels.model import KernelEntry
from twinmod.project.config import Config
from twinmod.project.model import Subject
from twinmod.vm import boot as vm_boot
from twinmod.vm import running, session, strategy
from twinmod.vm.options import RunOptions
from twinmod.workspace import Prepared, Workspace


class SoakReport(Document, frozen=True, kw_only=True, tag="twinmod.soak/1"):
    """What a soak came to."""

    kernel: KernelEntry
    accelerator: str
    seed: int
    stalled_boots: int
    modules: tuple[ModuleEntry, ...]
    differential: DifferentialReport


def render_soak(document: SoakReport) -> str:
    """Return a soak as text: how often each step was carried out, and how far it went."""
    found = document.differential
    width = max((len(name) for name in found.carried_out), default=0)
    lines = [
        f"{name:<{width}}  {count:>9}  of which refused {found.refused[name]}"
        for name, count in found.carried_out.items()
    ]
    kernel = document.kernel.release
    lines.append(f"kernel {kernel}, {document.accelerator}, seed {document.seed}")
    return "\n".join((*lines, differential_report.render_differential(found)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What the differential came to."""

    result: CellResult
    # As in the reports.
    document: DifferentialReport
    # Declared differences that occurred.
    differences: tuple[DifferenceEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """What a soak came to."""

    result: CellResult
    document: SoakReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploring:
    """A differential that waits for its VM, and what is needed to say what it came to."""

    config: Config
    definition: scripts.Definition
    explorer: differential_explorer.Explorer

    def finish(self, ended: CellResult) -> Explored:
        """Return what it came to, after its VM is gone; a failing sequence is kept as a script."""
        exploration, declared = self.explorer.finish(), self.explorer.declared
        problems = differential_report.find_problems(exploration, self.definition, declared)
        path = self._write_script(exploration.failure) if exploration.failure else None
        shown = str(path.relative_to(self.config.out_dir.parent)) if path else ""
        result = differential_report.plan_result(
            ended, exploration, problems if ended.outcome == Outcome.PASSED else (), shown
        )
        document = differential_report.plan_report(result, exploration, shown)
        occurred = tuple(
            differences.plan_entry(one, (result.cell.name,))
            for one in declared.steps
            if one in declared.occurred
        )
        return Explored(result=result, document=document, differences=occurred)

    def _write_script(self, failure: differential_explorer.Failure) -> Path:
        name = differential_report.plan_script_name(failure.sequence)
        path = self.config.out_dir / "replays" / name
        comments = (f"kernel {self.config.kernel.name}", *failure.message.splitlines())
        cache.write_atomically(path, scripts.render_script(failure.sequence, comments))
        return path


def read_rounds(config: Config, selection: Selection) -> tuple[differential_explorer.Round, ...]:
    """Return what a run of `test` carries out; () when it is narrowed to tests, or has none.

    Raises:
        ConfigError: The project's scripts are not all there, or not all scripts.
    """
    if not config.differential or selection.narrowing or selection.record:
        return ()
    definition = load_definition(config)
    folder = config.matrix_dir / config.differential / differential_corpus.CORPUS
    testers = find_testers(config)
    corpus = differential_corpus.read_corpus(folder, definition, testers)
    return differential_explorer.plan_corpus_rounds(corpus, selection.testers or testers)


def load_definition(config: Config) -> scripts.Definition:
    """Import the driver's package.

    Raises:
        ConfigError: It does not import; or it has no model, and the driver has one module alone or
            declares that the first one differs, with which the others are compared.
    """
    definition = scripts.load_definition(config.matrix_dir, config.differential)
    if not isinstance(definition, scripts.WithoutModel):
        return definition
    where, first = f"drivers.{config.driver.name}", config.modules[0].label
    if len(config.modules) == 1:
        raise ConfigError(
            f"{where}.differential has no model and the driver one module: nothing to compare",
            hint=f"a function `expect` in {config.differential}/strategy.py is a model",
        )
    for number, one in enumerate(config.driver.differences, 1):
        if one.subject == Subject.STEP and one.module == first:
            raise ConfigError(
                f"{where}.differences, number {number}, has a step of {first}, with which the "
                "other modules are compared: it differs from nothing",
            )
    return definition


def can_compare(config: Config, products: tuple[Product, ...]) -> bool:
    """Tell whether the modules of a run have a model, or else one another, to be compared with."""
    definition = load_definition(config)
    return len(products) > 1 or not isinstance(definition, scripts.WithoutModel)


def find_testers(config: Config) -> tuple[str, ...]:
    """Return the names of the testers that carry out steps, "" alone when the driver has none."""
    return tuple(tester.name for tester in config.testers) or ("",)


def plan_work(
    config: Config, products: tuple[Product, ...], life_s: float = vm_boot.RUN_TIMEOUT_S
) -> vm_boot.DifferentialWork:
    """Return what a VM has to do that does the differential alone.

    Args:
        config: Names the package.
        products: All modules.
        life_s: How long the VM may live, in seconds.
    """
    return vm_boot.DifferentialWork(
        cells=(DifferentialCell(package=config.differential),),
        products=products,
        limit_s=config.vm.test_timeout_s,
        life_s=life_s,
    )


def plan_declared(config: Config, products: tuple[Product, ...]) -> differential_explorer.Declared:
    """Return the declared differences of the modules that a VM has."""
    labels = {product.module: product.label for product in products}
    return differential_explorer.Declared(config.driver.differences, labels)


def prepare_exploring(
    workspace: Workspace,
    setting: vm_boot.Setting,
    work: vm_boot.DifferentialWork,
    out_dir: Path,
    rounds: Iterable[differential_explorer.Round],
) -> Exploring:
    """Return the differential of a run.

    Args:
        workspace: Names the package.
        setting: What a VM is made of, should the first one die.
        work: What those VMs are to do.
        out_dir: Gets their folders.
        rounds: What is carried out.
    """
    config, progress = workspace.config, workspace.progress
    differential_explorer.keep_in(config.out_dir / "hypothesis")
    definition = load_definition(config)
    count = iter(range(1, 1_000_000))

    def boot() -> AbstractContextManager[session.Vm]:
        vm_dir = out_dir / f"vm-again-{next(count)}"
        progress.note(f"the VM died of a sequence; booting another one: {vm_dir.name}")
        return session.serve(strategy.prepare_vm(setting, work, vm_dir), lambda _: None)

    def found(sequence: scripts.Sequence, message: str) -> None:
        progress.detail(f"a sequence of {len(sequence.steps)} steps fails; making it smaller")
        script = scripts.render_script(sequence, message.splitlines())
        cache.write_atomically(out_dir / "found.replay", script)

    def told(sequences: int, steps: int) -> None:
        progress.detail(f"differential, {sequences} sequences, {steps} steps done")

    explorer = differential_explorer.Explorer(definition, rounds, boot, found, told)
    explorer.declared = plan_declared(config, work.products)
    return Exploring(config=config, definition=definition, explorer=explorer)


def prepare_alone(
    workspace: Workspace, prepared: Prepared, out_dir: Path, life_s: float
) -> tuple[vm_boot.Setting, vm_boot.DifferentialWork]:
    """Build all modules that the kernel can have, for a VM that does the differential alone.

    Args:
        workspace: What to build.
        prepared: What to build it with.
        out_dir: Is emptied.
        life_s: How long the VM may live, in seconds.
    """
    config = workspace.config
    products = workspace.build(prepared, workspace.require_labels(prepared.tree))
    setting = workspace.prepare_clones(prepared, workspace.environment(prepared))
    shutil.rmtree(out_dir, ignore_errors=True)
    return setting, plan_work(config, products, life_s)


def run_soak(workspace: Workspace, prepared: Prepared, minutes: float, seed: int) -> Soaked:
    """Explore with fresh seeds for some minutes; write the report.

    Raises:
        ConfigError: The project has no differential.
    """
    config = workspace.config
    if not config.differential:
        raise ConfigError(
            "there is nothing to soak: the driver names no differential",
            hint=commands.render("test"),
        )
    out_dir = config.out_dir / "soak"
    life_s = minutes * 60 + vm_boot.RUN_TIMEOUT_S
    definition = load_definition(config)
    setting, work = prepare_alone(workspace, prepared, out_dir, life_s)
    if not can_compare(config, work.products):
        raise ConfigError(
            f"there is nothing to soak: the kernel can have {work.products[0].label} alone, and "
            "the differential has no model"
        )
    rounds = differential_explorer.iterate_rounds(
        definition, find_testers(config), seed, time.monotonic() + minutes * 60
    )
    exploring = prepare_exploring(workspace, setting, work, out_dir, rounds)
    options = RunOptions(converse=exploring.explorer.converse)
    # Every soak has a kernel that lies elsewhere in memory, which clones share.
    own = replace(setting, snapshot=None)
    (ended,), boots = running.run_cells(own, work, out_dir, workspace.progress, options)
    explored = exploring.finish(ended)
    for name, script in differential_corpus.plan_corpus(exploring.explorer.finish().kept).items():
        cache.write_atomically(out_dir / differential_corpus.CORPUS / name, script)
    document = SoakReport(
        kernel=model.plan_kernel(prepared.tree),
        accelerator=setting.accelerator.name,
        seed=seed,
        stalled_boots=boots.stalled,
        modules=report.plan_modules(work.products),
        differential=explored.document,
    )
    documents.write(out_dir / "report.json", document)
    return Soaked(result=explored.result, document=document)


def load_reproducer(config: Config, script: str, name: str) -> differential_reproduce.Reproducer:
    """Return what carries out a script again.

    Args:
        config: Names the package that the steps are of.
        script: As the differential left it.
        name: What an error calls it.

    Raises:
        ConfigError: It is no script, or there is no differential.
    """
    if not config.differential:
        raise ConfigError("there is nothing to replay: the driver names no differential")
    definition = load_definition(config)
    sequence = scripts.parse_file(script, name, definition, find_testers(config))
    return differential_reproduce.Reproducer(definition, sequence)


def run_reproduction(
    workspace: Workspace, prepared: Prepared, reproducer: differential_reproduce.Reproducer
) -> differential_reproduce.Reproduction:
    """Carry out a script's steps, one more each time, until one fails."""
    out_dir = workspace.out_dir / "replay"
    setting, work = prepare_alone(workspace, prepared, out_dir, vm_boot.RUN_TIMEOUT_S)
    reproducer.declared = plan_declared(workspace.config, work.products)
    options = RunOptions(converse=reproducer.converse)
    (ended,), _ = running.run_cells(setting, work, out_dir, workspace.progress, options)
    return reproducer.finish(ended)

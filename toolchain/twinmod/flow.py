# SPDX-License-Identifier: GPL-2.0-only
"""The verbs: config -> chroot -> kernel tree -> plan -> act -> report, each step once."""

import difflib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from twinmod import (
    bugs,
    cache,
    chroot,
    commands,
    costs,
    debugger,
    decode,
    differential,
    elf,
    guest,
    injection,
    kbuild,
    kernel,
    page,
    recording,
    report,
    resources,
    results,
    signing,
    userland,
    versions,
)
from twinmod.config import LANGUAGES, Config, plan_cells, select_kernel
from twinmod.errors import (
    ConfigError,
    ExitCode,
    MissingToolError,
    SelectionError,
    TwinmodError,
    VmLostError,
)
from twinmod.specs import (
    DIFFERENTIAL,
    AbsentCell,
    Cell,
    CellResult,
    Check,
    Chroot,
    KernelCell,
    KernelFault,
    KernelTree,
    Product,
    Progress,
)
from twinmod.visible import make_visible

Result = TypeVar("Result")

#: What programs include of the C module: the uapi header.
UAPI = "mdriver.h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What setup leaves: a chroot, a kernel tree, and the userland's parts."""

    chroot: Chroot
    tree: KernelTree
    site_dir: Path
    crates_dir: Path


def run_setup(config: Config, progress: Progress) -> Prepared:
    """Make everything that later steps need; quick when it is there.

    Raises:
        TwinmodError: See the steps.
    """
    root = ensure_root(config, progress)
    base = run_base(config, progress)
    mirror = config.mirror or root.mirror
    tree = kernel.ensure_tree(config.kernel, root, mirror, progress, base)
    site_dir = userland.ensure_site(root, config.lock_path, progress)
    projects = {spec.name: config.root_dir / spec.project for spec in config.testers}
    crates_dir = userland.ensure_crates(root, projects["rust"], progress)
    return Prepared(chroot=root, tree=tree, site_dir=site_dir, crates_dir=crates_dir)


def ensure_root(config: Config, progress: Progress) -> Chroot:
    """Return a kernel's chroot, made first when it is not there."""
    root = chroot.find_chroot(config.chroot)
    if root is None:
        cache.ensure_cache_dir()
        chroot.ensure_host_packages(progress)
        root = chroot.ensure_chroot(config.chroot, config.mirror, progress)
    return root


def run_base(config: Config, progress: Progress) -> KernelTree | None:
    """Return the kernel whose source another one is built from; None for one that is not."""
    if not config.kernel.source:
        return None
    base = select_kernel(config, config.kernel.source)
    root = ensure_root(base, progress)
    return kernel.ensure_tree(base.kernel, root, base.mirror or root.mirror, progress)


def look_for_tree(config: Config, root: Chroot | None) -> tuple[KernelTree | None, TwinmodError]:
    """Return a configuration's kernel, or None, and the error that a step without it ends with."""
    base = None
    if config.kernel.source:
        below = select_kernel(config, config.kernel.source)
        base_root = chroot.find_chroot(below.chroot)
        base, _ = kernel.look_for_tree(below.kernel, base_root)
    try:
        return kernel.look_for_tree(config.kernel, root, base)
    except OSError as error:
        return None, MissingToolError(
            f"kernel {config.kernel.name} cannot be read: {error.strerror or error}",
            facts=(("file", str(error.filename)),) if error.filename else (),
        )


def run_each(
    works: Mapping[str, Callable[[], Result]], tell: Callable[[str, TwinmodError], None]
) -> tuple[dict[str, Result], dict[str, TwinmodError]]:
    """Do something for each kernel; of several, one that fails ends none of the others.

    Args:
        works: What is done, by the name of the kernel.
        tell: Told at once of a kernel that failed, and why.

    Returns:
        By the name of the kernel, what was done, and what it failed with.

    Raises:
        SelectionError: The caller asks for something that no kernel has.
        TwinmodError: The only kernel failed.
    """
    if len(works) == 1:
        return {name: work() for name, work in works.items()}, {}
    done: dict[str, Result] = {}
    failed: dict[str, TwinmodError] = {}
    for name, work in works.items():
        try:
            done[name] = work()
        except SelectionError:
            raise
        except TwinmodError as error:
            failed[name] = error
            tell(name, error)
    return done, failed


def ensure_out_dir(out_dir: Path) -> None:
    """Make the folder of results.

    Raises:
        MissingToolError: It cannot be made, or not be written to.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(out_dir, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise MissingToolError(
            f"results cannot be written: {error.strerror}",
            facts=(("folder", str(out_dir)),),
            hint="cd to a folder of your own",
        ) from error


@contextmanager
def hold_checkout(config: Config, progress: Progress) -> Iterator[None]:
    """Keep a second run in this checkout waiting, and saying so, until this one ends.

    Raises:
        MissingToolError: Results cannot be written there.
    """
    ensure_out_dir(config.out_dir)
    with cache.hold_lock(config.out_dir / ".lock", "this checkout", progress):
        yield


# -- build ------------------------------------------------------------------------------------


def find_languages(tree: KernelTree) -> tuple[str, ...]:
    """Return the languages in which a kernel can have modules."""
    return tuple(language for language in LANGUAGES if not kbuild.find_absence(language, tree))


def require_languages(
    config: Config, tree: KernelTree, wanted: tuple[str, ...], progress: Progress
) -> tuple[str, ...]:
    """Return the wanted languages in which a kernel can have modules.

    Args:
        config: Names the modules.
        tree: The kernel.
        wanted: What a caller asks for.
        progress: Told which module is absent, and why.

    Raises:
        ConfigError: None is left.
    """
    found = tuple(language for language in wanted if language in find_languages(tree))
    absent = {
        config.find_module(language).name: kbuild.find_absence(language, tree)
        for language in wanted
        if language not in found
    }
    if not found:
        raise ConfigError(f"nothing is left to do: {'; '.join(dict.fromkeys(absent.values()))}")
    for name, reason in absent.items():
        progress.note(f"{name} is absent: {reason}")
    return found


def plan_builds(
    config: Config, tree: KernelTree, languages: tuple[str, ...]
) -> tuple[kbuild.BuildPlan, ...]:
    """Plan the build of the modules in some languages."""
    modules = [module for module in config.modules if module.language in languages]
    version = read_module_version(config)
    return tuple(
        kbuild.plan_build(
            module, tree, kbuild.read_sources(module, config.root_dir), config.out_dir, version
        )
        for module in modules
    )


def render_builds(config: Config, languages: tuple[str, ...], progress: Progress) -> str:
    """Return the commands that would build modules; run and make nothing.

    Raises:
        MissingToolError: Setup has not been run, so there are no such commands yet.
        ConfigError: The kernel can have none of the modules.
    """
    root = chroot.find_chroot(config.chroot)
    tree, error = look_for_tree(config, root)
    if tree is None:
        raise error
    plans = plan_builds(config, tree, require_languages(config, tree, languages, progress))
    return "\n\n".join(kbuild.render_show(plan) for plan in plans)


def run_build(
    config: Config, prepared: Prepared, languages: tuple[str, ...], progress: Progress
) -> tuple[Product, ...]:
    """Build modules, sign them for a kernel that wants that, and write the build report."""
    built = build_unsigned(config, prepared, languages, progress)
    products = tuple(signing.sign_product(prepared.tree, product) for product in built)
    document = kbuild.plan_report(products, prepared.tree)
    write_json(config.out_dir / "build/report.json", document)
    return products


def build_unsigned(
    config: Config, prepared: Prepared, languages: tuple[str, ...], progress: Progress
) -> tuple[Product, ...]:
    """Build modules as make leaves them."""
    plans = plan_builds(config, prepared.tree, languages)
    return tuple(kbuild.build(plan, progress) for plan in plans)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a report."""
    cache.write_atomically(path, json.dumps(document, indent=2) + "\n")


# -- the VM -----------------------------------------------------------------------------------


def read_module_version(config: Config) -> str:
    """Return what both modules say as their version: the public part of the project's.

    Raises:
        ConfigError: The project states none.
    """
    return versions.plan_base(versions.read_version(config.root_dir))


def read_uapi(config: Config) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the checkout, content) of the uapi header, as far as it is there."""
    module = config.find_module("c")
    path = config.root_dir / module.sources / UAPI
    return ((f"{module.sources}/{UAPI}", path.read_bytes()),) if path.exists() else ()


def read_beside(config: Config) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the checkout, content) of what testers are built of beside their projects."""
    version = versions.read_version(config.root_dir)
    return (*read_uapi(config), (versions.FILE, f"{version}\n".encode()))


def prepare_setting(config: Config, prepared: Prepared, progress: Progress) -> guest.Setting:
    """Return what every VM of a run is made of; builds the testers when they changed."""
    require_matrix(config)
    uapi, beside = read_uapi(config), read_beside(config)
    testers = tuple(
        (
            spec,
            userland.ensure_tester(
                spec,
                prepared.chroot,
                config.root_dir,
                beside,
                prepared.site_dir,
                prepared.crates_dir if spec.name == "rust" else None,
                progress,
            ),
        )
        for spec in config.testers
    )
    programs_dir = userland.ensure_programs(
        prepared.chroot, prepared.site_dir, config.matrix_dir, uapi, progress
    )
    with progress.phase("accelerator"):
        accelerator = guest.find_accelerator(prepared.tree, prepared.chroot, config.vm)
    tree = signing.sign_vm_modules(
        prepared.tree, config.out_dir / "build" / prepared.tree.release / "vm"
    )
    return guest.Setting(
        tree=tree,
        chroot=prepared.chroot,
        vm=config.vm,
        accelerator=accelerator,
        userland=guest.Userland(
            site_dir=prepared.site_dir, tester_dirs=testers, programs_dir=programs_dir
        ),
        version=read_module_version(config),
    )


def read_rules(config: Config) -> tuple[tuple[str, str], ...]:
    """Return (number, title) of the contract's rules.

    Raises:
        ConfigError: There is no contract, or no rule in it.
    """
    try:
        text = config.contract_path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the contract cannot be read: {getattr(error, 'strerror', error)}",
            facts=(("file", str(config.contract_path)),),
        ) from error
    rules = results.parse_rules(text)
    if not rules:
        raise ConfigError(
            "the contract has no rule: no heading '## R1 Title'",
            facts=(("file", str(config.contract_path)),),
        )
    return rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a caller narrowed a run to, or widened it by."""

    languages: tuple[str, ...]
    testers: tuple[str, ...]
    keyword: str = ""
    # Only the tests of these rules; () for those of all.
    rules: tuple[str, ...] = ()
    # Many more rounds of what repeats itself.
    long: bool = False
    # Whether its VMs can be replayed; nothing comes in once they run, so no differential.
    record: bool = False

    @property
    def narrowing(self) -> tuple[str, ...]:
        """Arguments of pytest that leave only some tests, () when all of them run."""
        rules = tuple(word for rule in self.rules for word in ("--rule", rule))
        return (*rules, "-k", self.keyword) if self.keyword else rules

    @property
    def pytest_args(self) -> tuple[str, ...]:
        """All arguments of pytest for it."""
        return (*self.narrowing, "--long") if self.long else self.narrowing

    def plan_expected(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return the rules that every cell must have an outcome for, of those of the contract."""
        if self.keyword:
            return ()
        return self.rules or known

    def plan_cells(self, config: Config) -> tuple[Cell, ...]:
        """Return the cells that it leaves."""
        return tuple(
            cell
            for cell in plan_cells(config)
            if cell.language in self.languages and cell.tester in self.testers
        )

    def render(self, config: Config) -> str:
        """Return what it narrows a run to as text, "" when it leaves everything."""
        cells = self.plan_cells(config)
        words = []
        if len(cells) < len(plan_cells(config)):
            words.append("cells " + " ".join(cell.name for cell in cells))
        words += [f"--rule {rule}" for rule in self.rules]
        if self.keyword:
            words.append(f"-k {self.keyword!r}")
        if self.record:
            words.append("what can be recorded: no differential")
        return ", ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run of the matrix."""

    # The cells of the matrix, then the differential if it was run.
    results: tuple[CellResult, ...]
    document: dict[str, Any]
    rules: tuple[tuple[str, str], ...]

    @property
    def cells(self) -> tuple[CellResult, ...]:
        """The cells of the matrix alone."""
        return tuple(result for result in self.results if result.cell != DIFFERENTIAL)

    @property
    def outcomes(self) -> dict[tuple[str, str], str]:
        """The outcome of every (rule, cell name)."""
        return {
            (rule, result.cell.name): results.compare_rule(result, rule)
            for rule, _ in self.rules
            for result in self.cells
        }


def plan_presence(
    cells: tuple[Cell, ...], tree: KernelTree
) -> tuple[tuple[Cell, ...], tuple[AbsentCell, ...]]:
    """Return the cells that a kernel can have, and those that it cannot."""
    reasons = {cell: kbuild.find_absence(cell.language, tree) for cell in cells}
    present = tuple(cell for cell, reason in reasons.items() if not reason)
    absent = tuple(
        AbsentCell(cell=cell, reason=reason) for cell, reason in reasons.items() if reason
    )
    return present, absent


def require_parts(config: Config) -> None:
    """Refuse a project that lacks a part of what the matrix needs, before anything is made.

    Raises:
        ConfigError: The contract, the matrix, a module's source or a tester is missing.
    """
    read_rules(config)
    require_matrix(config)
    for module in config.modules:
        kbuild.read_sources(module, config.root_dir)
    for tester in config.testers:
        userland.read_project(config.root_dir / tester.project)


def require_matrix(config: Config) -> None:
    """Refuse a project without tests.

    Raises:
        ConfigError: The folder of the matrix is missing.
    """
    if not config.matrix_dir.is_dir():
        raise ConfigError(
            "the matrix is missing",
            facts=(("folder", str(config.matrix_dir)),),
            hint="write its tests there, or correct `matrix` of [tool.twinmod]",
        )


def require_rules(config: Config, wanted: Iterable[str]) -> None:
    """Refuse a rule that the contract does not have.

    Raises:
        SelectionError: There is one; the nearest that it has are among the facts.
        ConfigError: See read_rules.
    """
    known = tuple(number for number, _ in read_rules(config))
    for rule in wanted:
        if rule not in known:
            near = difflib.get_close_matches(rule.upper(), known)
            raise SelectionError(
                f"--rule {rule}: {config.contract_path.name} has no such rule",
                facts=(("nearest" if near else "rules", " ".join(near or known)),),
                hint=commands.render("test", "--rule", (near or known)[0]),
            )


def plan_shown_rules(
    rules: tuple[tuple[str, str], ...], found: tuple[CellResult, ...], selection: Selection
) -> tuple[tuple[str, str], ...]:
    """Return the rules that a table shows: all, or those that a selection left."""
    ran = {rule for result in found for test in result.tests for rule in test.rules}
    shown = set(selection.rules) or ran
    return tuple((rule, title) for rule, title in rules if not selection.narrowing or rule in shown)


def run_test(
    config: Config,
    prepared: Prepared,
    selection: Selection,
    out_dir: Path,
    progress: Progress,
    phases: Callable[[], tuple[tuple[str, float], ...]],
    products: tuple[Product, ...] = (),
    root_dir: Path | None = None,
) -> Run:
    """Run the matrix on one kernel, write the reports to a folder.

    Args: those of every verb, and
        phases: What was done so far.
        products: The modules; those that the sources make now unless they are given.
        root_dir: What the VM has as its root instead of the chroot.

    Raises:
        ConfigError: The kernel can have none of the selected cells.
    """
    rules = read_rules(config)
    rounds = read_rounds(config, selection)
    cells, absent = plan_presence(selection.plan_cells(config), prepared.tree)
    if not cells:
        raise ConfigError(f"there is nothing to test: {absent[0].reason}")
    languages = tuple(sorted({cell.language for cell in cells}))
    products = products or run_build(config, prepared, languages, progress)
    setting = replace(prepare_setting(config, prepared, progress), root_dir=root_dir)
    if selection.record:
        setting = guest.plan_recorded(setting)
    if selection.narrowing:
        userland.require_tests(
            prepared.chroot, prepared.site_dir, setting.userland.programs_dir, selection.narrowing
        )
    shutil.rmtree(out_dir, ignore_errors=True)
    work = guest.Work(
        mode="matrix",
        cells=cells,
        products=products,
        limit_s=config.vm.test_timeout_s,
        pytest_args=selection.pytest_args,
        differential=config.differential,
    )
    exploring = None
    if rounds:
        exploring = prepare_exploring(config, setting, work, out_dir, progress, rounds)
        work = replace(work, cells=(*cells, DIFFERENTIAL))
    ended, boots = guest.run_cells(
        setting, work, out_dir, progress, exploring.explorer.converse if exploring else None
    )
    in_matrix = tuple(result for result in ended if result.cell != DIFFERENTIAL)
    numbers = tuple(rule for rule, _ in rules)
    checked = results.compare_coverage(in_matrix, selection.plan_expected(numbers), numbers)
    explored = exploring.finish(ended[-1]) if exploring else None
    injected = read_injected(out_dir, products, prepared.tree)
    if injected and not selection.narrowing:
        checked = blame_missed(checked, injected)
    everything = (*checked, explored.result) if explored else checked
    document = report.plan_test_report(
        checked,
        prepared.tree,
        {"name": setting.accelerator.name, "reason": setting.accelerator.reason},
        results.count_totals(everything, absent),
        narrowed=selection.render(config),
        long=selection.long,
        memory_mib=setting.vm.memory_mib,
        absent=absent,
        boots=boots.total,
        stalled_boots=boots.stalled,
        products=products,
        phases=phases(),
        vm_phases=boots.phases,
        differential=explored.document if explored else None,
        injected=injected,
    )
    write_json(out_dir / "report.json", document)
    cache.write_atomically(out_dir / "junit.xml", report.render_junit(everything))
    shown = plan_shown_rules(rules, checked, selection)
    return Run(results=everything, document=document, rules=shown)


def read_injected(
    out_dir: Path, products: tuple[Product, ...], tree: KernelTree
) -> dict[str, Any] | None:
    """Return what a run made fail on demand; None on a kernel that cannot."""
    texts = {
        product.module: "".join(
            path.read_text()
            for path in sorted(out_dir.glob(f"vm-*/results/failures-{product.module}-*.jsonl"))
        )
        for product in products
    }
    found = tuple(
        failure
        for module, text in texts.items()
        for failure in injection.parse_failures(text, module)
    )
    if not found:
        return None
    seen = tuple(product for product in products if texts[product.module])
    sites = tuple(s for product in seen for s in decode.read_sites(product, tree.compilers))
    symbols = {p.module: elf.parse_functions(p.path.read_bytes()) for p in seen}
    return injection.plan_report(found, sites, symbols)


def blame_missed(
    checked: tuple[CellResult, ...], injected: dict[str, Any]
) -> tuple[CellResult, ...]:
    """Return results in which a place that asks for memory and never failed is a problem."""
    missed = injection.find_missed(injected)
    for module in dict.fromkeys(module for module, _ in missed):
        problems = tuple(
            f"{place} asks for memory and was never made to fail"
            for other, place in missed
            if other == module
        )
        checked = results.blame(checked, module, problems)
    return checked


# -- the differential -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What the differential came to."""

    result: CellResult
    # As in the reports.
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploring:
    """A differential that waits for its VM, and what is needed to say what it came to."""

    config: Config
    definition: differential.Definition
    explorer: differential.Explorer

    def finish(self, ended: CellResult) -> Explored:
        """Return what it came to, after its VM is gone; a failing sequence is kept as a script."""
        exploration = self.explorer.finish()
        problems = differential.find_problems(exploration, self.definition)
        path = self._write_script(exploration.failure) if exploration.failure else None
        shown = str(path.relative_to(self.config.out_dir.parent)) if path else ""
        result = differential.plan_result(
            ended, exploration, problems if ended.outcome == "passed" else (), shown
        )
        document = {
            "outcome": result.outcome,
            "problems": list(result.problems),
            "kernel_faults": [report.plan_fault(fault) for fault in result.kernel_faults],
            **differential.plan_report(exploration, shown),
        }
        return Explored(result=result, document=document)

    def _write_script(self, failure: differential.Failure) -> Path:
        name = differential.plan_script_name(failure.sequence)
        path = self.config.out_dir / "replays" / name
        comments = (f"kernel {self.config.kernel.name}", *failure.message.splitlines())
        cache.write_atomically(path, differential.render_script(failure.sequence, comments))
        return path


def read_rounds(config: Config, selection: Selection) -> tuple[differential.Round, ...]:
    """Return what a run of `test` carries out; () when it is narrowed to tests, or has none.

    Raises:
        ConfigError: The project's scripts are not all there, or not all scripts.
    """
    if not config.differential or selection.narrowing or selection.record:
        return ()
    definition = differential.load_definition(config.matrix_dir, config.differential)
    folder = config.matrix_dir / config.differential / differential.CORPUS
    corpus = differential.read_corpus(folder, definition, LANGUAGES)
    return differential.plan_corpus_rounds(corpus, selection.testers)


def prepare_exploring(
    config: Config,
    setting: guest.Setting,
    work: guest.Work,
    out_dir: Path,
    progress: Progress,
    rounds: Iterable[differential.Round],
) -> Exploring:
    """Return the differential of a run.

    Args:
        config: Names the package.
        setting: What a VM is made of, should the first one die.
        work: What those VMs are to do.
        out_dir: Gets their folders.
        progress: Told of every sequence.
        rounds: What is carried out.
    """
    differential.keep_in(config.out_dir / "hypothesis")
    definition = differential.load_definition(config.matrix_dir, config.differential)
    count = iter(range(1, 1_000_000))

    def boot() -> AbstractContextManager[guest.Vm]:
        run_dir = out_dir / f"vm-again-{next(count)}"
        progress.note(f"the VM died of a sequence; booting another one: {run_dir.name}")
        return guest.serve(setting, work, run_dir, lambda _: None)

    def found(sequence: differential.Sequence, message: str) -> None:
        progress.detail(f"a sequence of {len(sequence.steps)} steps fails; making it smaller")
        script = differential.render_script(sequence, message.splitlines())
        cache.write_atomically(out_dir / "found.replay", script)

    def told(sequences: int, steps: int) -> None:
        progress.detail(f"differential, {sequences} sequences, {steps} steps done")

    explorer = differential.Explorer(definition, rounds, boot, found, told)
    return Exploring(config=config, definition=definition, explorer=explorer)


def prepare_alone(
    config: Config, prepared: Prepared, out_dir: Path, life_s: float, progress: Progress
) -> tuple[guest.Setting, guest.Work]:
    """Build all modules that the kernel can have, for a VM that does the differential alone.

    Args:
        config: What to build.
        prepared: What to build it with.
        out_dir: Is emptied.
        life_s: How long the VM may live, in seconds.
        progress: Told of every phase.
    """
    languages = require_languages(config, prepared.tree, LANGUAGES, progress)
    products = run_build(config, prepared, languages, progress)
    setting = prepare_setting(config, prepared, progress)
    shutil.rmtree(out_dir, ignore_errors=True)
    work = guest.Work(
        mode="matrix",
        cells=(DIFFERENTIAL,),
        products=products,
        limit_s=config.vm.test_timeout_s,
        differential=config.differential,
        life_s=life_s,
    )
    return setting, work


def run_soak(
    config: Config, prepared: Prepared, minutes: float, seed: int, progress: Progress
) -> Explored:
    """Explore with fresh seeds for some minutes; write the report.

    Raises:
        ConfigError: The project has no differential.
    """
    if not config.differential:
        raise ConfigError(
            "there is nothing to soak: [tool.twinmod] names no differential",
            hint=commands.render("test"),
        )
    out_dir = config.out_dir / "soak"
    life_s = minutes * 60 + guest.RUN_TIMEOUT_S
    setting, work = prepare_alone(config, prepared, out_dir, life_s, progress)
    definition = differential.load_definition(config.matrix_dir, config.differential)
    rounds = differential.iterate_rounds(
        definition, LANGUAGES, seed, time.monotonic() + minutes * 60
    )
    exploring = prepare_exploring(config, setting, work, out_dir, progress, rounds)
    (ended,), boots = guest.run_cells(setting, work, out_dir, progress, exploring.explorer.converse)
    explored = exploring.finish(ended)
    for name, script in differential.plan_corpus(exploring.explorer.finish().kept).items():
        cache.write_atomically(out_dir / differential.CORPUS / name, script)
    document = report.plan_soak_report(
        prepared.tree,
        setting.accelerator.name,
        seed,
        boots.stalled,
        work.products,
        explored.document,
    )
    write_json(out_dir / "report.json", document)
    return Explored(result=explored.result, document=document)


def plan_replay(config: Config, script: str, name: str) -> differential.Replayer:
    """Return what replays a script.

    Args:
        config: Names the package that the steps are of.
        script: As the differential left it.
        name: What an error calls it.

    Raises:
        ConfigError: It is no script, or there is no differential.
    """
    if not config.differential:
        raise ConfigError("there is nothing to replay: [tool.twinmod] names no differential")
    definition = differential.load_definition(config.matrix_dir, config.differential)
    sequence = differential.parse_file(script, name, definition, LANGUAGES)
    return differential.Replayer(definition, sequence)


def run_replay(
    config: Config, prepared: Prepared, replayer: differential.Replayer, progress: Progress
) -> differential.Replay:
    """Carry out a script's steps, one more each time, until one fails."""
    out_dir = config.out_dir / "replay"
    setting, work = prepare_alone(config, prepared, out_dir, guest.RUN_TIMEOUT_S, progress)
    (ended,), _ = guest.run_cells(setting, work, out_dir, progress, replayer.converse)
    return replayer.finish(ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """What a counter is to do in every cell."""

    threads: int
    # Of each thread.
    increments: int
    # As the testers have it.
    method: str
    # How often, each time in a fresh VM.
    repeats: int = 1
    # Seconds that a cell may take.
    limit_s: float


def run_counter(
    config: Config, prepared: Prepared, counting: Counting, progress: Progress
) -> tuple[dict[str, Any], tuple[CellResult, ...]]:
    """Count up in every cell: threads x increments on one device, by a method of the testers.

    All cells take their turn before the first one does so again: what drifts hits them all. Of
    several repeats, one whose VM does not boot ends none of the others.
    """
    languages = require_languages(config, prepared.tree, LANGUAGES, progress)
    cells, absent = plan_presence(plan_cells(config), prepared.tree)
    products = run_build(config, prepared, languages, progress)
    setting = prepare_setting(config, prepared, progress)
    out_dir = config.out_dir / "counter"
    shutil.rmtree(out_dir, ignore_errors=True)
    work = guest.Work(
        mode="count",
        cells=cells,
        products=products,
        limit_s=counting.limit_s,
        threads=counting.threads,
        increments=counting.increments,
        method=counting.method,
    )
    found: list[CellResult] = []
    for number in range(1, counting.repeats + 1):
        if counting.repeats > 1:
            progress.note(f"repeat {number} of {counting.repeats}")
        try:
            ended, _ = guest.run_cells(setting, work, out_dir / f"repeat-{number}", progress)
        except VmLostError as error:
            if counting.repeats == 1:
                raise
            ended = guest.plan_unreached(cells, error.message)
        found += ended
    document = costs.plan_counter_report(
        tuple(found),
        report.plan_kernel(prepared.tree),
        setting.accelerator.name,
        {
            "threads": counting.threads,
            "increments": counting.increments,
            "method": counting.method,
            "repeats": counting.repeats,
        },
        report.plan_absent(absent),
    )
    write_json(out_dir / "report.json", document)
    return document, tuple(found)


def run_shell(
    config: Config, prepared: Prepared, progress: Progress, *, gdb: bool = False
) -> ExitCode:
    """Give a person a VM with the modules that it can have loaded, and both testers importable.

    Raises:
        TwinmodError: A debugger is wanted that could make nothing of this kernel.
    """
    if gdb:
        debugger.require_debugger(prepared.tree, prepared.chroot)
    languages = require_languages(config, prepared.tree, LANGUAGES, progress)
    products = run_build(config, prepared, languages, progress)
    setting = prepare_setting(config, prepared, progress)
    out_dir = config.out_dir / "shell"
    shutil.rmtree(out_dir, ignore_errors=True)
    work = guest.Work(
        mode="shell", cells=(), products=products, limit_s=config.vm.test_timeout_s, gdb=gdb
    )
    with ExitStack() as stack:
        if gdb:
            stack.enter_context(offer_gdb(config, prepared, out_dir, progress))
        status = guest.run_shell(setting, work, out_dir)
    return ExitCode.PASSED if status == 0 else ExitCode.VM_LOST


@contextmanager
def offer_gdb(
    config: Config, prepared: Prepared, run_dir: Path, progress: Progress, *, unborn: bool = False
) -> Iterator[None]:
    """Let the verb `gdb` find the VM of a folder until the context is left; see debugger.Sight."""
    sight = debugger.Sight(
        tree=prepared.tree,
        chroot=prepared.chroot,
        socket_dir=run_dir / "results",
        builds=plan_builds(config, prepared.tree, find_languages(prepared.tree)),
        unborn=unborn,
    )
    record_path = debugger.write_record(config.out_dir / "gdb", debugger.plan_gdb(sight))
    progress.note(f"in another terminal: {commands.render('gdb')}")
    try:
        yield
    finally:
        record_path.unlink()


def run_gdb(config: Config, arguments: tuple[str, ...]) -> ExitCode:
    """Give a person gdb for the VM that their shell has booted."""
    status = debugger.run(config.out_dir / "gdb", arguments)
    return ExitCode.PASSED if status == 0 else ExitCode.TESTS_FAILED


def run_recording(
    config: Config,
    prepared: Prepared,
    recorded: recording.Recording,
    progress: Progress,
    *,
    gdb: bool,
) -> tuple[recording.Comparison, tuple[KernelFault, ...]]:
    """Repeat a VM that was recorded; return how it compares, and the faults that it ended with.

    Raises:
        ConfigError: It ran on something else than what is there now.
        TwinmodError: A debugger is wanted that could make nothing of this kernel.
    """
    recording.require_same(recorded, prepared.tree, prepared.chroot)
    if gdb:
        debugger.require_debugger(prepared.tree, prepared.chroot)
    languages = require_languages(config, prepared.tree, LANGUAGES, progress)
    products = run_build(config, prepared, languages, progress)
    changed = [p.module for p in products if recorded.modules.get(p.module, p.sha256) != p.sha256]
    if changed:
        progress.note(f"{' and '.join(changed)} changed since: places in it are of what it is now")
    out_dir = config.out_dir / "replay"
    shutil.rmtree(out_dir, ignore_errors=True)
    plan = recording.plan_replay(
        recorded, prepared.tree, prepared.chroot, config.vm, out_dir, gdb=gdb
    )
    with ExitStack() as stack:
        stack.enter_context(progress.phase(f"replay of {recorded.run_dir.name}"))
        if gdb:
            stack.enter_context(offer_gdb(config, prepared, out_dir, progress, unborn=True))
        with guest.run_vm(plan, guest.Watch(progress)) as vm:
            pass
    by_programs = results.parse_program_lines(results.parse_events(vm.lines))
    console = guest.read_console(out_dir)
    found, _ = guest.find_faults(console, products, out_dir, by_programs)
    decoded = decode.decode_faults(found, products, prepared.tree.compilers)
    return recording.compare_runs(recorded.run_dir, out_dir), decoded


# -- the report -------------------------------------------------------------------------------

#: What a page is made of, as far as it is there.
REPORTS = ("test", "bench", "counter", "zoo")


#: What making a page of a document ends in that is damaged, or of another version of twinmod.
MALFORMED = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    resources.TemplateError,
)

Rules = tuple[tuple[str, str], ...]


def find_report(config: Config, name: str) -> Path | None:
    """Return the report that a verb left; of a run on several kernels, the configured one's."""
    folder = config.out_dir / name
    paths = (folder / config.kernel.name / "report.json", folder / "report.json")
    return next((path for path in paths if path.exists()), None)


def read_reports(config: Config, rules: Rules, made: str) -> dict[str, dict[str, Any]]:
    """Return what earlier runs left, by verb; a page can be made of each.

    Raises:
        ConfigError: One of them is not whole, or there is none.
    """
    found = {}
    for name in REPORTS:
        path = find_report(config, name)
        if path is None:
            continue
        try:
            document = json.loads(path.read_bytes())
            if document["schema"] != f"twinmod.{name}/1":
                raise ValueError(f"schema {document['schema']!r}")
            render_pages({name: document}, rules, made)
        except MALFORMED as error:
            raise ConfigError(
                f"the report of `{name}` is not whole, or of another version of twinmod",
                facts=(("file", str(path)), ("why", bugs.render_words(error))),
                hint=commands.render(name),
            ) from error
        found[name] = document
    if not found:
        raise ConfigError(
            "there is nothing to report yet",
            facts=(("folder", str(config.out_dir)),),
            hint=f"{commands.render('test')}, then {commands.render('bench')}",
        )
    return found


def render_pages(
    documents: Mapping[str, Mapping[str, Any]], rules: Rules, made: str
) -> tuple[str, str]:
    """Return the page and the summary of some reports, as text that has a form in UTF-8."""
    values = page.plan_page(documents, rules, made, resources.read_version())
    text = resources.render_template("report.html.j2", values)
    return make_visible(text), make_visible(page.render_summary(documents, rules, made))


def run_report(config: Config) -> str:
    """Write the page and the summary to out/report; return the summary."""
    rules = read_rules(config)
    made = time.strftime("%Y-%m-%d")
    text, summary = render_pages(read_reports(config, rules, made), rules, made)
    cache.write_atomically(config.out_dir / "report/index.html", text)
    cache.write_atomically(config.out_dir / "report/summary.md", summary)
    return summary


# -- the rest ---------------------------------------------------------------------------------


def run_doctor(config: Config, probe: Callable[[str], bool]) -> tuple[Check, ...]:
    """Look at everything that a build needs; change nothing."""
    root = chroot.find_chroot(config.chroot)
    tree, error = look_for_tree(config, root)
    accelerator = guest.find_accelerator(tree, root, config.vm, remember=False)
    return (
        *chroot.check_host(),
        *chroot.check_chroot(config.chroot, config.mirror, probe, config.kernel.name),
        *kernel.check_tree(config.kernel, tree, error),
        *guest.check_vm(accelerator),
    )


def list_cells(config: Config) -> tuple[KernelCell, ...]:
    """Return every kernel x module x tester of the configuration; make nothing."""
    found = []
    for spec in config.kernels:
        selected = select_kernel(config, spec.name)
        root = chroot.find_chroot(selected.chroot)
        tree, error = look_for_tree(selected, root)
        for cell in plan_cells(config):
            reason = kbuild.find_absence(cell.language, tree) if tree else error.message
            found.append(
                KernelCell(
                    kernel=spec.name,
                    release=tree.release if tree else "",
                    cell=cell,
                    reason=reason,
                    fix="" if tree else error.hint,
                )
            )
    return tuple(found)


def run_lint(config: Config, prepared: Prepared, progress: Progress) -> None:
    """Hold the modules' and the Rust tester's sources to the kernel's and clippy's checks."""
    languages = require_languages(config, prepared.tree, LANGUAGES, progress)
    for plan in plan_builds(config, prepared.tree, languages):
        kbuild.lint(plan, progress)
    spec = next(spec for spec in config.testers if spec.name == "rust")
    userland.lint(
        spec, prepared.chroot, config.root_dir, prepared.site_dir, prepared.crates_dir, progress
    )


def find_used_entries(config: Config) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of the cache's entries that this project's kernels use."""
    selected = (select_kernel(config, spec.name) for spec in config.kernels)
    return tuple(dict.fromkeys(entry for one in selected for entry in _find_entries_of(one)))


def _find_kernel_keys(config: Config, root: Chroot) -> tuple[str, ...]:
    """Return the cache's name of a kernel; () for one whose source is not there."""
    if not config.kernel.source:
        return (kernel.plan_key(config.kernel, root),)
    tree, _ = look_for_tree(config, root)
    return (tree.key,) if tree else ()


def _find_entries_of(config: Config) -> tuple[tuple[str, str], ...]:
    root = chroot.find_chroot(config.chroot)
    if root is None:
        return ()
    site = userland.plan_lock_digest(root, config.lock_path)
    used = [
        ("chroot", root.key),
        ("native", userland.plan_native_digest(root)),
        *(("kernel", key) for key in _find_kernel_keys(config, root)),
        (cache.SCRATCH, root.key),
        ("python", site),
    ]
    for spec in config.testers:
        lock_path = config.root_dir / spec.project / "Cargo.lock"
        if lock_path.exists():
            used.append(("crates", userland.plan_lock_digest(root, lock_path)))
        files = userland.read_project(config.root_dir / spec.project)
        used.append(
            ("tester", userland.plan_tester_name(spec, root, site, (*files, *read_beside(config))))
        )
    files = userland.read_programs(config.matrix_dir, read_uapi(config))
    used.append(("programs", userland.plan_digest(root, site, files)))
    return tuple(used)

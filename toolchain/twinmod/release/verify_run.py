# SPDX-License-Identifier: GPL-2.0-only
"""The acts of checking a release: as somebody who trusts nobody, by installing it."""

import re
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import assert_never

from twinmod.base import archives, cache, commands, documents, zstd
from twinmod.base.progress import Progress
from twinmod.builds import signing
from twinmod.builds.product import Product
from twinmod.cells import model, report
from twinmod.cells import selection as cells_selection
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import ConfigError, NotPassedError, TwinmodError
from twinmod.guest.protocol import Outcome
from twinmod.kernels import elf, find, kconfig
from twinmod.kernels.model import Origin
from twinmod.matrix import run as matrix_run
from twinmod.matrix.report import TestReport
from twinmod.project import config as project_config
from twinmod.project import rules
from twinmod.project.config import Config
from twinmod.project.model import Language
from twinmod.release import dkms, verify
from twinmod.release import index as release_index
from twinmod.release.index import Modinfo, ReleaseIndex
from twinmod.release.model import Release
from twinmod.release.verify import HERE, ROOT, VM, Step, VerifyReport
from twinmod.vm import boot, running
from twinmod.workspace import Prepared, Workspace

#: What a kernel of another release says of a module, and one that wants a signature, by itself or
#: because it is locked down; Linux 7.3, kernel/module/main.c and signing.c, security/security.c.
OTHER_RELEASE = ("version magic",)
NO_SIGNATURE = (
    "Loading of unsigned module is rejected",
    "unsigned module loading is restricted",
)

#: What reading a stranger's documents and archives ends with when they are not what they claim.
MALFORMED = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    StopIteration,
    RecursionError,
    EOFError,
    tarfile.TarError,
)


class AbsentError(Exception):
    """The project has nothing that a step could be done with: no failure, and it is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A release that lies in a folder."""

    # The content of each file, by its path.
    files: Mapping[str, bytes]
    index: ReleaseIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Modules to check on a kernel."""

    workspace: Workspace
    prepared: Prepared
    products: tuple[Product, ...]


@dataclass(kw_only=True)
class Steps:
    """The steps of a verification, each done and noted; one that fails ends none of the others."""

    progress: Progress
    done: list[Step] = field(default_factory=list)

    def take(self, name: str, where: str, act: Callable[[], str]) -> None:
        """Do a step; its act returns what was seen, "" when this release has nothing of it.

        What the project lacks for it the act raises, as AbsentError.
        """
        began = time.monotonic()
        try:
            with self.progress.phase(f"verify: {name}"):
                detail = act()
            outcome = verify.StepOutcome.PASSED if detail else verify.StepOutcome.ABSENT
        except AbsentError as why:
            detail, outcome = str(why), verify.StepOutcome.ABSENT
        except TwinmodError as error:
            facts = "; ".join(f"{name} {value}" for name, value in error.facts)
            detail, outcome = (
                error.message + (f" ({facts})" if facts else ""),
                verify.StepOutcome.FAILED,
            )
        except MALFORMED as error:
            detail, outcome = (
                f"the release is not what it should be: {error!r}",
                verify.StepOutcome.FAILED,
            )
        seconds = round(time.monotonic() - began, 1)
        self.done.append(
            Step(
                name=name,
                where=where,
                outcome=outcome,
                seconds=seconds,
                detail=" ".join(detail.split()) or "nothing of it in this release",
            )
        )


def read_release(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a release, by its path in its folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# -- files ------------------------------------------------------------------------------------


def check_sums(files: Mapping[str, bytes]) -> str:
    """Compare every file with its sum.

    Raises:
        NotPassedError: One is another, missing, or has none; it is named.
    """
    wrong = verify.find_wrong_sums(files)
    if wrong:
        raise NotPassedError("; ".join(wrong))
    return f"{len(files)} files are what their sums say"


def check_documents(files: Mapping[str, bytes]) -> str:
    """Compare every file with the index and the provenance.

    Raises:
        NotPassedError: They say something that is not so.
    """
    wrong = verify.find_wrong_documents(files)
    if wrong:
        raise NotPassedError("; ".join(wrong))
    index = verify.parse_index(files)
    return f"{len(index.artifacts)} artifacts of commit {index.commit[:12]}"


def check_signature(folder: Path, allowed: Path | None) -> str:
    """Find who signed the sums.

    Raises:
        NotPassedError: Nobody did that a person allows.
    """
    path = folder / release_index.SUMS
    signature = path.with_name(f"{path.name}.sig")
    if not signature.is_file():
        if allowed is not None:
            raise NotPassedError("the sums are not signed")
        return ""
    if allowed is None:
        return "signed; by whom was not asked: no --allowed-signers FILE"
    name = signing.find_signer(path, signature, allowed)
    if not name:
        raise NotPassedError("the sums are signed by nobody of the file of allowed signers")
    return f"the sums are signed by {name}"


# -- modules ----------------------------------------------------------------------------------


def unpack_modules(
    files: Mapping[str, bytes], labels: Mapping[str, str], prepared: Prepared, work_dir: Path
) -> tuple[Product, ...]:
    """Unpack the modules of one kernel, and compare each with all that is said of it.

    Args:
        files: Of the release.
        labels: By name, of the modules that there can be; a release may say anything.
        prepared: The kernel, with a chroot that has zstd.
        work_dir: Gets the modules.

    Raises:
        NotPassedError: A module is not the one that its description or the tests name.
        ConfigError: One says another version than the release.
    """
    kernel_release = prepared.tree.release
    version = verify.parse_index(files).version
    found = []
    for path, data in files.items():
        if not path.endswith(f"-{kernel_release}-{release_index.ARCHITECTURE}.tar.zst"):
            continue
        members = archives.parse_tar(zstd.decompress_zstd(prepared.chroot, data))
        described = next(f.content for f in members if f.path.endswith("modinfo.json"))
        modinfo = documents.parse(described, Modinfo)
        (module,) = (f for f in members if f.path.endswith(".ko"))
        digest = release_index.read_digest(module.content)
        if modinfo.name not in labels:
            raise NotPassedError(f"{path}: {modinfo.name!r} is none of {', '.join(labels)}")
        if modinfo.sha256 != digest:
            raise NotPassedError(f"{path}: the module is not the one of its modinfo.json")
        said = elf.parse_module(module.content).find_modinfo("version")
        release_index.check_version(version, modinfo.name, said)
        target = work_dir / f"{modinfo.name}.ko"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(module.content)
        found.append(
            Product(
                module=modinfo.name,
                label=labels[modinfo.name],
                language=Language(modinfo.language),
                path=target,
                size_bytes=len(module.content),
                sha256=digest,
                vermagic=modinfo.vermagic,
                seconds=0.0,
                command="",
                up_to_date=True,
            )
        )
    if not found:
        raise NotPassedError(f"there is no module for kernel {kernel_release}")
    _require_tested(files, kernel_release, tuple(found))
    return tuple(found)


def _require_tested(
    files: Mapping[str, bytes], kernel_release: str, products: tuple[Product, ...]
) -> None:
    name = f"{release_index.EVIDENCE}/test-{kernel_release}-report.json"
    if name not in files:
        raise NotPassedError(f"{name} is missing: nothing says that these modules were tested")
    flaw = release_index.find_test_flaw(documents.parse(files[name], TestReport), products)
    if flaw:
        raise NotPassedError(f"{name}: {flaw}")


def check_matrix(subject: Subject, out_dir: Path, root_dir: Path | None = None) -> str:
    """Run the whole matrix on modules, in a VM.

    Args:
        subject: The modules.
        out_dir: Gets what the run leaves.
        root_dir: The VM's root, instead of the chroot's.

    Raises:
        NotPassedError: They do not pass.
    """
    selection = cells_selection.Selection(
        labels=tuple(product.label for product in subject.products)
    )
    wanted = matrix_run.Wanted(
        selection=selection, out_dir=out_dir, products=subject.products, root_dir=root_dir
    )
    run = matrix_run.run_test(subject.workspace, subject.prepared, wanted)
    totals = run.document.totals
    seen = report.render_totals(totals)
    failed = [result.cell.name for result in run.results if result.outcome != Outcome.PASSED]
    if failed or totals.failed or not totals.passed:
        raise NotPassedError(f"{seen}; not passed: {' '.join(failed)}")
    return f"{seen}, on {subject.prepared.tree.release}, {run.document.accelerator}"


def try_to_load(subject: Subject, out_dir: Path) -> dict[str, CellResult]:
    """Return what became of each module on a kernel, by its name: one rule where it loads."""
    config, progress = subject.workspace.config, subject.workspace.progress
    setting = subject.workspace.environment(subject.prepared)
    wanted = {product.label for product in subject.products}
    every = model.plan_cells(config)
    found = tuple(cell for cell in every if cell.label in wanted and cell.tester == every[0].tester)
    cells = model.name_cells(found, subject.products)
    first_rule = rules.read_rules(config)[:1]
    work = boot.MatrixWork(
        cells=cells,
        products=subject.products,
        limit_s=config.vm.test_timeout_s,
        pytest_args=tuple(word for rule, _ in first_rule for word in ("--rule", rule)),
    )
    ended, _ = running.run_cells(setting, work, out_dir, progress)
    return {result.cell.module: result for result in ended if isinstance(result.cell, Cell)}


def require_refusal(results: Mapping[str, CellResult], reasons: tuple[str, ...]) -> str:
    """Return what a kernel said when it refused modules.

    Args:
        results: By module.
        reasons: What it says, one of them.

    Raises:
        NotPassedError: It took one, or said something else.
    """
    said = []
    for module, result in results.items():
        text = " ".join(result.problems)
        words = next((reason for reason in reasons if reason in text), "")
        if "did not load" not in text or not words:
            raise NotPassedError(
                f"{module} was not refused with {reasons[0]!r}: {result.outcome} {text}".strip()
            )
        lines = re.sub(r".*the kernel says: ", "", text).split("; ")
        said.append(next(line for line in lines if words in line))
    return "; ".join(said)


def find_other_kernel(
    workspace: Workspace, kernel_release: str
) -> tuple[Workspace, Prepared] | None:
    """Return a kernel of the project that is of another release, None when there is none.

    One that was set up is taken first, then one that can be downloaded: none is built for this.

    Raises:
        TwinmodError: There may be one, and none of them could be set up; the last one's error.
    """
    config = workspace.config
    others = [
        workspace.select(kernel.name)
        for kernel in config.kernels
        if kernel.name != config.kernel.name
    ]
    trees = [(other, other.look_for_tree()[0]) for other in others]
    ready = [other for other, tree in trees if tree and tree.release != kernel_release]
    # Two of one suite may be of one release.
    absent = sorted(
        (
            other
            for other, tree in trees
            if tree is None and _is_downloaded(find.choose_kernel(other.config).origin)
        ),
        key=lambda other: other.config.kernel.suite == config.kernel.suite,
    )
    refused: TwinmodError | None = None
    for other in (*ready, *absent):
        try:
            prepared = other.setup()
        except TwinmodError as error:
            refused = error
            continue
        if prepared.tree.release != kernel_release:
            return other, prepared
    if refused is not None:
        raise refused
    return None


def _is_downloaded(origin: Origin) -> bool:
    match origin:
        case Origin.STOCK:
            return True
        case Origin.BUILT | Origin.TREE:
            return False
        case _:
            assert_never(origin)


def check_other_kernel(subject: Subject, out_dir: Path) -> str:
    """Offer modules to a kernel of another release, which must refuse them and say why.

    Raises:
        AbsentError: The project has none.
    """
    other = find_other_kernel(subject.workspace, subject.prepared.tree.release)
    if other is None:
        raise AbsentError("no kernel of [tool.twinmod.kernels] is of another release")
    chosen, prepared = other
    found = try_to_load(replace(subject, workspace=chosen, prepared=prepared), out_dir)
    return f"{prepared.tree.release}: {require_refusal(found, OTHER_RELEASE)}"


def find_enforcing(config: Config) -> Config | None:
    """Return a kernel of the project that takes signed modules alone, None when there is none.

    It is built here, or by a person, so that its key can be: nobody has that of a stock kernel.
    """
    for spec in config.kernels:
        selected = project_config.select_kernel(config, spec.name)
        options = find.choose_kernel(selected).read_chosen_options()
        if kconfig.find_enforcement(options, spec.command_line):
            return selected
    return None


def check_enforcing(workspace: Workspace, out_dir: Path) -> str:
    """Offer modules without and with a signature to a kernel that takes signed ones alone.

    It is one of the project's, which trusts the key that its build made; modules are built for it
    from this project's sources.

    Raises:
        AbsentError: The project has none.
    """
    config = find_enforcing(workspace.config)
    if config is None:
        raise AbsentError("no kernel of [tool.twinmod.kernels] takes signed modules alone")
    chosen = replace(workspace, config=config)
    prepared = chosen.setup()
    labels = chosen.find_labels(prepared.tree)
    built = chosen.build_unsigned(prepared, labels)
    subject = Subject(workspace=chosen, prepared=prepared, products=built)
    unsigned = try_to_load(subject, out_dir / "unsigned")
    refused = require_refusal(unsigned, NO_SIGNATURE)
    signed = chosen.build(prepared, labels)
    seen = check_matrix(replace(subject, products=signed), out_dir / "test")
    return f"{config.kernel.name}: unsigned: {refused}; signed: {seen}"


# -- the whole --------------------------------------------------------------------------------


def run_verify(workspace: Workspace, folder: Path, allowed: Path | None) -> VerifyReport:
    """Check a release that lies in a folder; write and return the report.

    Raises:
        ConfigError: There is no release in it.
    """
    files = read_release(folder)
    released = Released(files=files, index=verify.parse_index(files))
    out_dir = workspace.out_dir / "verify"
    cache.remove_tree(out_dir)
    steps = Steps(progress=workspace.progress)
    steps.take("sums", HERE, lambda: check_sums(files))
    steps.take("index and provenance", HERE, lambda: check_documents(files))
    steps.take("signature", HERE, lambda: check_signature(folder, allowed))
    if all(step.outcome != verify.StepOutcome.FAILED for step in steps.done):
        _check_modules(workspace, released, out_dir, steps)
    document = verify.plan_report(released.index, steps.done)
    documents.write(out_dir / "report.json", document)
    return document


def _check_modules(workspace: Workspace, released: Released, out_dir: Path, steps: Steps) -> None:
    """Check what a release has for one kernel."""
    prepared = workspace.setup()
    index = released.index
    if prepared.tree.release not in {kernel.release for kernel in index.kernels}:
        raise ConfigError(
            f"the release has nothing for kernel {prepared.tree.release}",
            facts=(("its kernels", " ".join(kernel.release for kernel in index.kernels)),),
            hint=commands.render("release", "--verify", "DIR", "--kernel", "NAME"),
        )
    products: list[Product] = []

    def unpack() -> str:
        labels = {module.name: module.label for module in workspace.config.modules}
        products.extend(unpack_modules(released.files, labels, prepared, out_dir / "modules"))
        return "; ".join(f"{p.file_name} {p.sha256[:12]} is the tested one" for p in products)

    steps.take("prebuilt modules", HERE, unpack)
    if not products:
        return
    shipped = Subject(workspace=workspace, prepared=prepared, products=tuple(products))
    steps.take(
        "prebuilt modules pass the matrix",
        VM,
        lambda: check_matrix(shipped, out_dir / "test"),
    )
    _check_dkms(shipped, released, out_dir / "dkms", steps)
    steps.take(
        "another kernel refuses them",
        VM,
        lambda: check_other_kernel(shipped, out_dir / "other"),
    )
    steps.take(
        "a kernel that wants signatures",
        VM,
        lambda: check_enforcing(workspace, out_dir / "enforcing"),
    )


def _check_dkms(shipped: Subject, released: Released, work_dir: Path, steps: Steps) -> None:
    """Install the DKMS packages, use what they build, upgrade, and remove them."""
    if not any(name.endswith(".deb") for name in released.files):
        steps.take("dkms", ROOT, lambda: "")
        return
    progress, config, index = steps.progress, shipped.workspace.config, released.index
    what = Release(
        version=index.version,
        commit=index.commit,
        epoch=index.epoch,
        source_dir=config.root_dir,
    )
    machines: list[dkms.Machine] = []

    def make() -> str:
        machine = dkms.make_machine(config, shipped.prepared, released.files, work_dir)
        machines.append(machine)
        return f"Debian {machine.root.suite}, headers and source of {machine.kernel_release}"

    try:
        steps.take("dkms: a fresh machine", ROOT, make)
        if not machines:
            return
        (machine,) = machines
        steps.take("dkms: apt installs the packages", ROOT, lambda: dkms.install(machine, what))
        if steps.done[-1].outcome != verify.StepOutcome.PASSED:
            return
        steps.take(
            "dkms: its modules pass the matrix, on that root",
            VM,
            lambda: check_matrix(
                replace(shipped, products=dkms.find_products(machine, shipped.products)),
                work_dir / "test",
                machine.root.root_dir,
            ),
        )
        steps.take("dkms: an upgrade", ROOT, lambda: dkms.upgrade(machine, config, what, progress))
        steps.take("dkms: a second kernel", ROOT, lambda: dkms.upgrade_kernel(machine))
        steps.take("dkms: removal", ROOT, lambda: dkms.remove(machine))
    finally:
        cache.remove_tree(work_dir / "root")

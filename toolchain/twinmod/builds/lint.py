# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own checks of a module's sources: checkpatch, the tree's rustfmt, clippy."""

import shutil
from dataclasses import replace
from pathlib import Path

from twinmod.base import process, sandbox
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Enter
from twinmod.builds import build
from twinmod.builds.build import BUILD_TIMEOUT_S, COMPILER_LINES, BuildPlan
from twinmod.project.model import Language


def lint(plan: BuildPlan, progress: Progress) -> None:
    """Hold a module's sources to the kernel's own checks, in a stage of their own.

    Raises:
        BuildError: A check has something to say; what it said is among the facts.
    """
    stage_dir = plan.stage_dir.with_name(f"{plan.module.name}.lint")
    shutil.rmtree(stage_dir, ignore_errors=True)
    stage_dir.mkdir(parents=True)
    for name, content in plan.files:
        (stage_dir / name).write_bytes(content)
    for name, command in list_checks(plan, stage_dir):
        with progress.phase(f"{name} of {plan.module.name}"):
            process.run(command)


def list_checks(plan: BuildPlan, stage_dir: Path) -> tuple[tuple[str, Command], ...]:
    """Return the kernel's own checks of a module's sources by name; each fails on a find.

    C: checkpatch, and a build with W=1 and warnings as errors. Rust: the tree's rustfmt, and
    clippy with warnings as errors.
    """
    module, tree = plan.module, plan.tree
    binds, hidden = build.plan_binds(module, tree, stage_dir)
    _, inside = build.plan_folder(module)
    paths = tuple(str(inside / path.name) for path in build.list_sources(stage_dir))
    checks = _plan_checks(plan, paths)
    return tuple(
        (
            name,
            replace(
                sandbox.plan_command(
                    tree.compilers,
                    argv,
                    Enter(binds=binds, hidden=hidden),
                    timeout_s=BUILD_TIMEOUT_S,
                    purpose=f"{name} has something to say about {module.name}",
                ),
                tail_lines=COMPILER_LINES,
            ),
        )
        for name, argv in checks
    )


def _plan_checks(
    plan: BuildPlan, paths: tuple[str, ...]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return (name, argument vector) of the checks of a module's language."""
    module, tree = plan.module, plan.tree
    if plan.language == Language.RUST:
        style = ("--edition", "2021", "--config-path", f"{sandbox.LINUX}/.rustfmt.toml")
        clippy = build.plan_make(module, tree, "CLIPPY=1", "KRUSTFLAGS=-Dwarnings", "modules")
        return (("rustfmt", ("rustfmt", "--check", *style, *paths)), ("clippy", clippy))
    checkpatch = ("perl", f"{sandbox.LINUX}/scripts/checkpatch.pl")
    options = ("--no-tree", "--strict", "--terse", "--show-types", "-f")
    warnings = build.plan_make(module, tree, "W=1", "KCFLAGS=-Werror", "modules")
    return (("checkpatch", (*checkpatch, *options, *paths)), ("warnings", warnings))

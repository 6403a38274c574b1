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
from twinmod.builds.sources import SOURCE_SUFFIXES, list_sources, name_of


def lint(plan: BuildPlan, progress: Progress) -> None:
    """Hold a module's sources to the kernel's own checks, in a stage of their own.

    Raises:
        BuildError: A check has something to say; what it said is among the facts.
    """
    stage_dir = plan.stage_dir.with_name(f"{plan.stage_dir.name}.lint")
    shutil.rmtree(stage_dir, ignore_errors=True)
    stage_dir.mkdir(parents=True)
    build.write_files(plan.files, stage_dir)
    for name, command in list_checks(plan, stage_dir):
        with progress.phase(f"{name} of {name_of(plan.module)}"):
            process.run(command)


def list_checks(plan: BuildPlan, stage_dir: Path) -> tuple[tuple[str, Command], ...]:
    """Return the kernel's own checks of a module's sources by name; each fails on a find.

    C: checkpatch, and a build with W=1 and warnings as errors. Rust: the tree's rustfmt, and
    clippy with warnings as errors.
    """
    module, tree = plan.module, plan.tree
    binds, hidden = build.plan_binds(module, tree, stage_dir)
    _, inside = build.plan_folder(module)
    names = (str(path.relative_to(stage_dir)) for path in list_sources(stage_dir))
    paths = tuple(str(inside / name) for name in names if name.endswith(SOURCE_SUFFIXES))
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
                    purpose=f"{name} has something to say about {name_of(module)}",
                ),
                tail_lines=COMPILER_LINES,
            ),
        )
        for name, argv in checks
    )


def _plan_checks(
    plan: BuildPlan, paths: tuple[str, ...]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return (name, argument vector) of the checks of what a module is written in."""
    module, tree = plan.module, plan.tree
    rust = tuple(path for path in paths if path.endswith(".rs"))
    c = tuple(path for path in paths if path not in rust)
    checks: list[tuple[str, tuple[str, ...]]] = []
    if rust:
        style = ("--edition", "2021", "--config-path", f"{sandbox.LINUX}/.rustfmt.toml")
        clippy = build.plan_make(module, tree, "CLIPPY=1", "KRUSTFLAGS=-Dwarnings", "modules")
        checks += [("rustfmt", ("rustfmt", "--check", *style, *rust)), ("clippy", clippy)]
    if c:
        checkpatch = ("perl", f"{sandbox.LINUX}/scripts/checkpatch.pl")
        options = ("--no-tree", "--strict", "--terse", "--show-types", "-f")
        warnings = build.plan_make(module, tree, "W=1", "KCFLAGS=-Werror", "modules")
        checks += [("checkpatch", (*checkpatch, *options, *c)), ("warnings", warnings)]
    return tuple(checks)

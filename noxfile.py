# SPDX-License-Identifier: GPL-2.0-only
"""Sessions: install, then one command each. What they do is in toolchain/twinmod."""

import re
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "toolchain"))

from twinmod.base import environment  # noqa: E402

nox.needs_version = ">=2025.5"
nox.options.sessions = ["lint", "unit"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

LOCKS = ROOT / "toolchain" / "locks"

# The unit tests by all processors: `-- -n 0` is one process, and `-- --pdb` makes that of itself.
PARALLEL = ("-n", "logical", "--dist", "worksteal")

# A person's pip may install for the user by default, which no virtual environment can.
PIP = {"PIP_USER": "0"}


def install(session: nox.Session, lock: str, *projects: str) -> None:
    """Install a lock, twinmod and other projects of ours, unless nothing of them changed."""
    lock_path = LOCKS / f"{lock}.txt"
    folders = tuple(ROOT / project for project in projects)
    inputs = (
        lock_path,
        ROOT / "pyproject.toml",
        ROOT / "VERSION",
        *environment.list_files(*folders),
    )
    home = Path(session.virtualenv.location)
    if environment.is_current(home, inputs):
        return
    session.install("--require-hashes", "-r", str(lock_path), env=PIP)
    session.install(
        "--no-build-isolation",
        "--no-deps",
        "-e",
        str(ROOT),
        *map(str, folders),
        env={"CARGO_TARGET_DIR": str(ROOT / "out" / "cargo"), **PIP},
    )
    environment.note_current(home, inputs)


def twinmod(session: nox.Session, *arguments: str) -> None:
    """Run a verb of the command; a VM may take a while to end after Ctrl-C."""
    install(session, "run")
    session.run("twinmod", *arguments, *session.posargs, interrupt_timeout=15, terminate_timeout=10)


def program(session: nox.Session, path: str) -> None:
    """Run a program of tests/, with the session's arguments."""
    install(session, "run")
    arguments = (path, *session.posargs)
    session.run("python", *arguments, interrupt_timeout=15, terminate_timeout=10)


@nox.session
def doctor(session: nox.Session) -> None:
    """Say what is there, what is missing and how to mend it; change nothing."""
    twinmod(session, "doctor")


@nox.session
def setup(session: nox.Session) -> None:
    """Make the chroot, the kernel tree with its Rust crates, and the VM's userland."""
    twinmod(session, "setup")


@nox.session
def build(session: nox.Session) -> None:
    """Build both modules for the stock kernel."""
    twinmod(session, "build")


@nox.session(name="build-c")
def build_c(session: nox.Session) -> None:
    """Build the C module, out of tree."""
    twinmod(session, "build", "c")


@nox.session(name="build-rust")
def build_rust(session: nox.Session) -> None:
    """Build the Rust module, in the Linux tree."""
    twinmod(session, "build", "rust")


@nox.session
def test(session: nox.Session) -> None:
    """Run the matrix: both modules with both testers."""
    twinmod(session, "test")


@nox.session(name="test-c")
def test_c(session: nox.Session) -> None:
    """Run the matrix against the C module."""
    twinmod(session, "test", "--module", "c")


@nox.session(name="test-rust")
def test_rust(session: nox.Session) -> None:
    """Run the matrix against the Rust module."""
    twinmod(session, "test", "--module", "rust")


@nox.session
def soak(session: nox.Session) -> None:
    """Hold both modules to one model with fresh random steps: -- --minutes N."""
    twinmod(session, "soak")


@nox.session
def layouts(session: nox.Session) -> None:
    """Measure other layouts of the device's memory, and hold them to the rules."""
    program(session, "tests/layouts/layouts.py")


@nox.session
def mutate(session: nox.Session) -> None:
    """Put small faults into the modules, and see that a rule of the matrix catches each."""
    twinmod(session, "mutate")


@nox.session
def clones(session: nox.Session) -> None:
    """Run parts of a cell in a thousand clones, and see that nothing is lost and nothing left."""
    program(session, "tests/clones/clones.py")


@nox.session
def devices(session: nox.Session) -> None:
    """Plug devices into clones, and take one out again."""
    program(session, "tests/devices/run.py")


@nox.session
def projects(session: nox.Session) -> None:
    """Work on projects of others: Debian's DKMS packages, those of `new`, that of a page."""
    program(session, "tests/projects/run.py")


@nox.session
def counter(session: nox.Session) -> None:
    """Count up with many threads on one device, in every cell."""
    twinmod(session, "counter")


@nox.session
def bench(session: nox.Session) -> None:
    """Count what each call costs in instructions, time it by a clock, and say why."""
    twinmod(session, "bench")


@nox.session
def report(session: nox.Session) -> None:
    """Make one page and a summary of what test, bench, counter and zoo left."""
    twinmod(session, "report")


@nox.session
def release(session: nox.Session) -> None:
    """Make, in dist/, what a stranger can install and check; --check builds it twice."""
    install(session, "release")
    session.run("twinmod", "release", *session.posargs, interrupt_timeout=15, terminate_timeout=10)


@nox.session
def shell(session: nox.Session) -> None:
    """Boot a VM with both modules loaded, and give its console to you."""
    twinmod(session, "shell")


@nox.session
def gdb(session: nox.Session) -> None:
    """Debug, with symbols and sources, the VM of `shell -- --gdb` in another terminal."""
    twinmod(session, "gdb")


@nox.session
def replay(session: nox.Session) -> None:
    """Repeat, instruction for instruction, a VM of `test -- --record`: RUN is its folder."""
    twinmod(session, "replay")


@nox.session
def matrix(session: nox.Session) -> None:
    """Show kernels x modules x testers, with yes or the reason why not."""
    twinmod(session, "matrix")


@nox.session
def cache(session: nox.Session) -> None:
    """Show (list) or free (prune) what lies outside the checkout."""
    twinmod(session, "cache")


@nox.session
def zoo(session: nox.Session) -> None:
    """Build and run a collection of bugs in both languages; say what stopped each."""
    twinmod(session, "zoo")


@nox.session(name="lint-kernel")
def lint_kernel(session: nox.Session) -> None:
    """Run the kernel's own checks: checkpatch, the tree's rustfmt, clippy."""
    twinmod(session, "lint-kernel")


@nox.session
def lint(session: nox.Session) -> None:
    """Run ruff, import contracts, mypy, stubtest and rustfmt."""
    install(session, "lint", "c_tester", "rust_tester")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")
    session.run("mypy")
    for package in ("mdriver_tester_c", "mdriver_tester_rust"):
        session.run("python", "-m", "mypy.stubtest", package)
    session.run(
        "cargo", "fmt", "--check", "--manifest-path", "rust_tester/Cargo.toml", external=True
    )


@nox.session
def unit(session: nox.Session) -> None:
    """Run the toolchain's own tests: about a minute on two idle cores, no VM."""
    install(session, "unit")
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the unit tests with the lowest versions that pyproject.toml allows."""
    document = nox.project.load_toml(ROOT / "pyproject.toml")
    wanted = (
        *document["project"]["dependencies"],
        *nox.project.dependency_groups(document, "unit"),
    )
    session.install(*(re.sub(r">=([^,]+).*", r"==\1", line) for line in wanted), env=PIP)
    session.install("--no-build-isolation", "--no-deps", "-e", str(ROOT), env=PIP)
    session.run("pytest", *PARALLEL, *session.posargs)

# SPDX-License-Identifier: GPL-2.0-only
"""Projects that nobody configured, new ones, and what docs/your-driver.md shows of them.

bwrap, and with it QEMU and every compiler, is a program that plays a script; everything else is as
it is in a run. See tests/fakevm.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fakevm
from fakevm import Host, MakeElf
from twinmod.base import process
from twinmod.base.process import Command
from twinmod.base.progress import Quiet
from twinmod.errors import ExitCode
from twinmod.project import config as project_config
from twinmod.project import skeleton
from twinmod.vm import shell

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests/projects"))

import page  # noqa: E402

PAGE = CHECKOUT / "docs/your-driver.md"

#: Two kernels with the names of built-in ones, which the player boots.
BUILTIN: Mapping[str, Any] = {
    "kernel": "trixie-backports",
    "roots": {"toy": {"suite": "toy"}},
    "kernels": {
        name: {"root": "toy", "suite": "toy", "flavour": name}
        for name in ("trixie-backports", "kasan")
    },
}

KBUILD = "obj-m := hello.o\nhello-y := main.o greeting.o\n"


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    make_elf: MakeElf,
    monkeypatch: pytest.MonkeyPatch,
) -> Host:
    """A host in a folder that nobody configured."""
    host = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    monkeypatch.setattr(project_config, "read_builtin", lambda: BUILTIN)
    monkeypatch.setattr(shell, "require_terminal", lambda: None)
    monkeypatch.chdir(tmp_path)
    for name in ("hello", "echo_c", "echo_rust"):
        fakevm.write_module(host.home_dir, name, make_elf)
    return replace(host, project_dir=tmp_path)


def prepare(folder: Path) -> None:
    """Let the kernels of the project in a folder be there."""
    config = skeleton.read_project(folder, Quiet())
    for kernel in config.kernels:
        fakevm.write_cache(project_config.select_kernel(config, kernel.name))


@pytest.fixture
def hello(host: Host) -> Host:
    """A host in a folder with a Kbuild and two sources."""
    folder = host.project_dir
    (folder / "Kbuild").write_text(KBUILD)
    for name in ("main.c", "greeting.c", "greeting.h"):
        (folder / name).write_text("int x;\n")
    prepare(folder)
    return host


def test_a_folder_with_a_kbuild_is_built_and_tested(
    hello: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in hello.project_dir.iterdir()}
    assert hello.call("build") == ExitCode.PASSED
    assert "hello.ko" in capsys.readouterr().out
    assert hello.call("test") == ExitCode.PASSED
    report = hello.read("test/report.json")
    assert [(one["module"], one["label"]) for one in report["modules"]] == [("hello", "c")]
    plan = hello.read("test/vm-1/results/plan.json")
    assert [cell["name"] for cell in plan["cells"]] == ["c"]
    assert plan["version"] == ""
    assert {path.name for path in hello.project_dir.iterdir()} == before | {"out"}


def test_its_own_kbuild_is_the_one_that_make_reads(hello: Host) -> None:
    assert hello.call("build") == ExitCode.PASSED
    (stage,) = (hello.project_dir / "out/build").glob("*/hello")
    assert (stage / "Kbuild").read_text() == KBUILD
    assert (stage / "main.c").exists()


def test_it_is_tested_on_another_kernel_checked_and_looked_at(hello: Host) -> None:
    assert hello.call("test", "--kernel", "kasan") == ExitCode.PASSED
    assert hello.call("lint-kernel") == ExitCode.PASSED
    assert hello.call("shell") == ExitCode.PASSED
    plan = hello.read("shell/results/plan.json")
    assert [*plan["modules"]] == ["hello"]


def test_a_fault_of_it_is_the_exit_code(hello: Host) -> None:
    hello.play("vm-1", fakevm.BOOT, fakevm.begin("c"), ("console", fakevm.OOPS), fakevm.KILL)
    assert hello.call("test") == ExitCode.KERNEL_FAULT


def test_init_writes_what_the_folder_stands_for(
    hello: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hello.call("init") == ExitCode.PASSED
    assert capsys.readouterr().err == "wrote twinmod.toml; next: twinmod test\n"
    assert hello.call("test") == ExitCode.PASSED
    assert hello.call("init") == ExitCode.USAGE
    assert "this folder has a configuration: twinmod.toml" in capsys.readouterr().err


def test_a_new_project_is_tested_by_its_rules(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.call("new", "echo") == ExitCode.PASSED
    assert capsys.readouterr().err == "made echo; next: cd echo && twinmod test\n"
    folder = host.project_dir / "echo"
    monkeypatch.chdir(folder)
    prepare(folder)
    rules = [act for rule in ("R1", "R2", "R3", "R4") for act in fakevm.run_test(rule)]
    for name in ("c", "rust"):
        host.play_cell(name, fakevm.begin(name), *rules, fakevm.end())
    own = replace(host, project_dir=folder)
    assert own.call("test") == ExitCode.PASSED
    report = own.read("test/report.json")
    assert [cell["module"] for cell in report["cells"]] == ["echo_c", "echo_rust"]
    assert report["totals"] == {"passed": 8, "failed": 0, "skipped": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        ("Echo",),
        ("echo", "--languages", "go"),
        ("echo", "--kind", "usb"),
        ("echo", "--kind", "mdriver", "--skeleton"),
        ("echo", "--kind", "mdriver", "--languages", "c"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    arguments: tuple[str, ...], host: Host
) -> None:
    assert host.call("new", *arguments) == ExitCode.USAGE
    assert not list(host.project_dir.iterdir())


def test_a_copy_of_mdriver_is_a_kind_of_new_project(host: Host) -> None:
    assert host.call("new", "mine", "--kind", "mdriver") == ExitCode.PASSED
    assert (host.project_dir / "mine/DEVICE.md").is_file()


def test_the_commands_of_the_page_work(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [act for rule in ("R1", "R2", "R3", "R4") for act in fakevm.run_test(rule)]
    host.play_cell("rust", fakevm.begin("rust"), *rules, fakevm.end())
    folder, done = host.project_dir, []
    for one in page.parse_page(PAGE.read_text()):
        if isinstance(one, page.File):
            (folder / one.name).write_text(one.text)
            continue
        word, *arguments = one.words
        if word == "cd":
            folder = (folder / arguments[0]).resolve()
            monkeypatch.chdir(folder)
        elif word == "twinmod":
            if arguments[0] not in {"new", "init"}:
                prepare(folder)
            if folder.name == "echo":
                host.play_cell("c", fakevm.begin("c"), *rules, fakevm.end())
            assert host.call(*arguments) == ExitCode.PASSED, one
            done.append(arguments[0])
        else:
            process.run(Command(argv=one.words, purpose=word, timeout_s=10))
    assert done == ["build", "test", "test", "lint-kernel", "shell", "init", "new", "test"]
    assert (host.project_dir / "hello/twinmod.toml").is_file()

# SPDX-License-Identifier: GPL-2.0-only
"""Folders of tests without a conftest.py: programs, fixtures, markers, as the agent has them."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guestworld import Said, World
from twinmod.base import process, templates
from twinmod.base.process import Command
from twinmod.guest import protocol
from twinmod.guest.collection import PLUGIN
from twinmod.guest.protocol import MatrixJob

MATRIX = MatrixJob(pytest_args=(), rules=(), files=(), tests=())


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path / "world")
    (found.folder / "matrix/test_toy.py").unlink()
    return found


def run(world: World, **values: Any) -> Said:
    """Run the matrix of a world in its first cell."""
    return world.run(replace(world.plan(MATRIX, "toy_c/c"), **values))


def find_ended(said: Said) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return (outcome, rules, message) of each test, by its name."""
    return {
        event.id: (str(event.outcome), event.rules, event.message)
        for event in said.find(protocol.TestEnded)
    }


def compile_c(world: World, name: str, text: str) -> None:
    """Write a test in C, and compile it as the host does."""
    world.write(f"matrix/{name}.c", text)
    path = world.folder / "matrix" / name
    process.run(Command(argv=("gcc", "-o", str(path), f"{path}.c"), purpose="c", timeout_s=60))


def collect(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest with the plugin and nothing else; return its status, and what it said."""
    command = Command(
        argv=(
            *(sys.executable, "-m", "pytest", str(folder), "--rootdir", str(folder)),
            *("-c", "/dev/null", "-p", PLUGIN, "-p", "no:cacheprovider", "-q", *arguments),
        ),
        purpose="pytest",
        timeout_s=60,
        environment=(
            ("PYTHONPATH", str(templates.PACKAGE_DIR.parent)),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
        ),
    )
    return process.run_unchecked(command)


# -- programs ---------------------------------------------------------------------------------

TAP = """\
/* rule: R2 */
#include <stdio.h>

int main(void)
{
	puts("1..3\\nok 1 opens\\nnot ok 2 reads\\nnot ok 3 seeks # TODO");
	return 0;
}
"""


def test_scripts_and_programs_in_c_are_tests_with_rules_outcomes_and_reasons(world: World) -> None:
    compile_c(world, "calls", TAP)
    for name, text in {
        "good.sh": "# rule: R1\ntrue\n",
        "bad.sh": "#!/bin/sh\n# rule: R1 R3\necho one\necho two >&2\nexit 3\n",
        "skipped.sh": "echo no such device\nexit 4\n",
        "killed.sh": "kill -9 $$\n",
        "missing.sh": "#!/no/such/shell\n",
        "inner/deep.sh": "test -e ../good.sh\n",
        # None of these is a test.
        "_sourced.sh": "exit 1\n",
        "_shared.c": "",
        "old.m32.c": "",
        "data.txt": "",
    }.items():
        world.write(f"matrix/{name}", text)
    said = run(world)
    ended = find_ended(said)
    outcomes = {name: (outcome, rules) for name, (outcome, rules, _) in ended.items()}
    assert outcomes == {
        "good.sh::good": ("passed", ("R1",)),
        "bad.sh::bad": ("failed", ("R1", "R3")),
        "skipped.sh::skipped": ("skipped", ()),
        "killed.sh::killed": ("failed", ()),
        "missing.sh::missing": ("failed", ()),
        "inner/deep.sh::deep": ("passed", ()),
        "calls.c::calls": ("failed", ("R2",)),
    }
    messages = {name.partition("::")[2]: message for name, (_, _, message) in ended.items()}
    assert messages["good"] == ""
    assert messages["bad"] == (
        "bad.sh: it exited with status 3\nits output ends with\n  one\n  two"
    )
    assert "no such device" in messages["skipped"]
    assert messages["killed"] == "killed.sh: signal 9 ended it"
    assert messages["missing"].startswith("missing.sh: /no/such/shell does not start: No such file")
    assert messages["calls"].startswith("calls.c: 1 of 3 subtests failed\nnot ok 2 reads\n")
    (end,) = said.find(protocol.CellEnded)
    assert (end.outcome, end.problems) == ("failed", ())


TOLD = """\
#!/bin/sh
cat > TOLD <<END
$TWINMOD_MODULE
$TWINMOD_MODULE_PATH
$TWINMOD_DEVICE
$TWINMOD_DEVICES
$TWINMOD_TESTER
$TWINMOD_LONG
$(pwd)
$(readlink /proc/$$/fd/$TWINMOD_LOG)
END
"""


def test_a_program_learns_its_cell_from_its_environment(world: World) -> None:
    world.write("matrix/told.sh", TOLD.replace("TOLD", str(world.folder / "told")))
    job = replace(MATRIX, pytest_args=("--long",))
    said = world.run(world.plan(job, "toy_c/c"))
    assert find_ended(said)["told.sh::told"][0] == "passed"
    assert (world.folder / "told").read_text().splitlines() == [
        "toy_c",
        str(world.folder / "toy_c.ko"),
        # It appeared when the module was loaded; others were there before.
        "/dev/toy_c",
        "/dev/toy_c",
        "c",
        "1",
        str(world.folder / "matrix"),
        str(world.folder / "dev/kmsg"),
    ]


def test_a_script_in_a_root_of_tests_alone_finds_busyboxs_programs(world: World) -> None:
    world.write("matrix/good.sh", "true\n")
    (world.folder / "usr/bin/ls").unlink()
    run(world)
    assert "busybox: --install -s /usr/bin" in world.called


def test_a_rule_selects_programs_too(world: World) -> None:
    world.write("matrix/one.sh", "# rule: R1\n")
    world.write("matrix/two.sh", "# rule: R2\n")
    said = world.run(world.plan(replace(MATRIX, rules=("R2",)), "toy_c/c"))
    assert [*find_ended(said)] == ["two.sh::two"]


# -- fixtures ---------------------------------------------------------------------------------

FIXTURES = """\
import os
from pathlib import Path
import pytest
from twinmod.guest.testing import Devices, Module

def test_module(module):
    assert (module.name, module.ko_path.name) == ("toy_c", "toy_c.ko")
    assert module.is_loaded()

def test_devices(devices):
    assert devices == Devices(nodes=(Path("/dev/toy_c"),))
    assert devices.node == Path("/dev/toy_c")

def test_unloaded(unloaded, devices):
    assert not unloaded.is_loaded()
    assert devices.nodes == ()
    with pytest.raises(LookupError, match="no device node appeared"):
        devices.node

def test_loaded_again(module):
    assert module.is_loaded()

def test_left_loaded(unloaded):
    unloaded.load("size=1")

def test_tester(tester):
    assert tester.__name__ == "toy_tester_c"

def test_steps(mark_step, long_run):
    assert not long_run
    mark_step()
"""


def test_every_fixture_is_there_without_a_conftest(world: World) -> None:
    world.write("matrix/test_fixtures.py", FIXTURES)
    said = run(world)
    ended = find_ended(said)
    assert {message for _, _, message in ended.values()} == {""}
    assert len(ended) == 7
    assert world.called == [
        "finit_module toy_c",
        *("delete_module toy_c", "finit_module toy_c"),
        *("delete_module toy_c", "finit_module toy_c size=1"),
        *("delete_module toy_c", "finit_module toy_c"),
        "delete_module toy_c",
        "reboot 1126301404",
    ]


def test_a_test_that_needs_a_tester_is_skipped_where_there_is_none(world: World) -> None:
    world.write("matrix/test_x.py", "def test_x(tester): pass\ndef test_y(module): pass\n")
    plan = world.plan(MATRIX, "toy_c/c")
    cell = replace(plan.cells[0], name="toy_c", tester="")
    ended = find_ended(world.run(replace(plan, testers={}, cells=(cell,))))
    assert ended["test_x.py::test_x"][0] == "skipped"
    assert "it needs a tester, and this cell has none" in ended["test_x.py::test_x"][2]
    assert ended["test_x.py::test_y"][0] == "passed"


FAILING = """\
import pytest

@pytest.mark.fail_nth
def test_needs_it(): pass

def test_needs_nothing(): pass
"""


def test_a_kernel_that_makes_nothing_fail_has_no_test_that_needs_it(world: World) -> None:
    world.write("matrix/test_x.py", FAILING)
    assert [*find_ended(run(world))] == ["test_x.py::test_needs_nothing"]


LOGGED = """\
def test_log(kernel_log):
    assert kernel_log() == []
    with open("KMSG", "a") as log:
        log.write("6,1,3000000,-;toy_c: hello\\n")
    assert kernel_log() == ["toy_c: hello"]
    assert kernel_log() == []
"""


def test_the_log_of_a_test_is_what_came_since_it_was_read(tmp_path: Path) -> None:
    log_path = tmp_path / "kmsg"
    log_path.write_text("6,1,3000000,-;toy_c: before\n")
    opened = f"os.open({str(log_path)!r}, os.O_RDONLY)"
    conftest = f"""\
import os
from twinmod.guest import log

def open_log():
    descriptor = {opened}
    os.lseek(descriptor, 0, os.SEEK_END)
    return descriptor

log.open_log = open_log
"""
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_x.py").write_text(LOGGED.replace("KMSG", str(log_path)))
    status, output = collect(tmp_path)
    assert status == 0, output


# -- on a host --------------------------------------------------------------------------------


NOBODY = ("--module", "none", "--module-path", "none", "--collect-only")


def test_a_host_collects_what_only_some_kernels_can_do(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(FAILING)
    (tmp_path / "run.sh").write_text("exit 1\n")
    status, output = collect(tmp_path, *NOBODY)
    assert status == 0
    assert output.splitlines()[:3] == [
        "run.sh::run",
        "test_x.py::test_needs_it",
        "test_x.py::test_needs_nothing",
    ]


def test_a_test_that_needs_a_module_says_so_where_nobody_named_one(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_x(module): pass\n")
    _, output = collect(tmp_path)
    assert "a test needs a module: --module NAME --module-path FILE" in output


def test_each_line_of_a_program_is_a_step(tmp_path: Path) -> None:
    (tmp_path / "lines.sh").write_text("echo one\necho two\n")
    log_path, beats_path = tmp_path / "kmsg", tmp_path / "beats"
    log_path.touch()
    script = (
        "import os, sys, pytest; from pathlib import Path\n"
        "from twinmod.guest import log; log.open_log = lambda: os.open(sys.argv[1], os.O_RDONLY)\n"
        "beats = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)\n"
        "sys.exit(pytest.main([*sys.argv[3:], '--marks', str(beats)]))\n"
    )
    command = Command(
        argv=(
            *(sys.executable, "-c", script, str(log_path), str(beats_path), str(tmp_path)),
            *("--rootdir", str(tmp_path), "-c", os.devnull, "-p", PLUGIN, "-p", "no:cacheprovider"),
            *("--module", "toy", "--module-path", "toy.ko"),
        ),
        purpose="pytest",
        timeout_s=60,
        environment=(
            ("PYTHONPATH", str(templates.PACKAGE_DIR.parent)),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ),
    )
    process.run(command)
    assert beats_path.read_bytes() == b".."


def test_the_tests_of_a_driver_without_any_are_collected() -> None:
    status, output = collect(templates.PACKAGE_DIR / "guest/standard", *NOBODY)
    names = [line.partition("::")[2] for line in output.splitlines() if "::" in line]
    assert status == 0
    assert names == [
        "test_it_is_live",
        "test_it_unloads_and_loads_again",
        "test_it_says_nothing_that_is_an_error",
        "test_many_loads_leave_no_device_behind",
        "test_many_loads_leave_no_memory_behind",
    ]

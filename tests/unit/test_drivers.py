# SPDX-License-Identifier: GPL-2.0-only
"""Projects other than a twin with two testers: what verbs do with one module, or several drivers.

bwrap, and with it QEMU and every compiler, is a program that plays a script; everything else is as
it is in a run. See tests/fakevm.
"""

import json
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

import fakevm
from fakevm import KERNEL, Host, MakeElf
from twinmod.base import cache
from twinmod.base.progress import Quiet
from twinmod.cells import model
from twinmod.cells.model import Cell
from twinmod.errors import ExitCode
from twinmod.workspace import Workspace

#: One module in C, and nothing else that a project may leave out.
ALONE = KERNEL + '[drivers.alone]\ntests = "matrix"\nmodules.old = "c_module"\n'

#: Two drivers of one module each; the second has a contract.
TWO = (
    ALONE
    + '[drivers.ruled]\ntests = "matrix"\ncontract = "DEVICE.md"\nmodules.new = "rust_module"\n'
)


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    host = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    yield host
    # Other tests of this process have the same project.
    (host.project_dir / "twinmod.toml").unlink(missing_ok=True)
    for name in ("alone", "ruled"):
        cache.remove_tree(host.project_dir / "out" / name)


def configure(host: Host, text: str) -> None:
    """Let the project have a twinmod.toml, and nothing of twinmod's in its pyproject.toml."""
    (host.project_dir / "twinmod.toml").write_text(text)
    (host.project_dir / "pyproject.toml").write_text("[project]\nname = 'toy'\n")


# -- one module alone -------------------------------------------------------------------------


def test_one_module_is_tested_in_a_cell_that_has_its_label(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, ALONE)
    assert host.call("test") == ExitCode.PASSED
    report = host.read("test/report.json")
    assert [(cell["module"], cell["tester"]) for cell in report["cells"]] == [("toy_c", "")]
    assert [(one["label"], one["language"]) for one in report["modules"]] == [("old", "c")]
    assert report["totals"] == {"passed": 2, "failed": 0, "skipped": 0}
    assert report["differential"] is None
    # A table of tests: the driver has no rules.
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["test", "old"] in lines
    assert ["cell", "pass"] in lines
    plan = host.read("test/vm-1/results/plan.json")
    assert [cell["name"] for cell in plan["cells"]] == ["old"]
    assert plan["testers"] == {}


def test_one_module_is_on_the_page_of_a_report(host: Host) -> None:
    configure(host, ALONE)
    assert host.call("test") == ExitCode.PASSED
    assert host.call("report") == ExitCode.PASSED
    page = (host.project_dir / "out/report/index.html").read_text()
    assert "<th>old</th>" in page.replace('<th scope="col">', "<th>")
    assert "**1 cells: 2 passed" in (host.project_dir / "out/report/summary.md").read_text()


def test_a_helper_is_loaded_first_and_is_in_no_cell(host: Host) -> None:
    configure(host, ALONE + 'helpers = [{ sources = "rust_module", parameters = ["a=1"] }]\n')
    assert host.call("test") == ExitCode.PASSED
    plan = host.read("test/vm-1/results/plan.json")
    assert [cell["name"] for cell in plan["cells"]] == ["old"]
    (name, helper), *more = plan["needed"].items()
    assert (name, helper["parameters"], more) == ("toy_rust", "a=1", [])
    assert [one["module"] for one in host.read("test/report.json")["modules"]] == ["toy_c"]


def test_a_cell_has_the_name_that_its_module_turns_out_to_have(host: Host) -> None:
    cells = (Cell(module="old", label="old"),)
    configure(host, ALONE)
    config = fakevm.read_config()
    (module,) = config.modules
    driver = replace(config.driver, modules=(replace(module, name=""),))
    unnamed = msgspec.structs.replace(config, driver=driver)
    assert model.plan_cells(unnamed) == cells
    workspace = Workspace(config=config, progress=Quiet())
    products = workspace.build(workspace.setup(), ("old",))
    assert [cell.module for cell in model.name_cells(cells, products)] == ["toy_c"]


def test_a_project_need_not_state_a_version(host: Host) -> None:
    configure(host, ALONE)
    (host.project_dir / "VERSION").unlink()
    assert host.call("test") == ExitCode.PASSED
    assert host.read("test/vm-1/results/plan.json")["version"] == ""
    (host.project_dir / "VERSION").write_text("many\n")
    assert host.call("build") == ExitCode.USAGE


def test_a_test_without_a_rule_that_fails_is_the_exit_code(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, ALONE)
    failing = fakevm.run_test("R2", "failed", "test_toy.py:7: 1 != 2")
    host.play_cell("old", fakevm.begin("old"), *failing, fakevm.end("failed"))
    assert host.call("test") == ExitCode.TESTS_FAILED
    assert "test_toy.py:7: 1 != 2" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("build",), ("build", "old"), ("matrix",)])
def test_verbs_that_need_no_tester_work_on_one_module(
    arguments: tuple[str, ...], host: Host
) -> None:
    configure(host, ALONE)
    assert host.call(*arguments) == ExitCode.PASSED


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("counter",), "counter calls the driver through testers, and alone has none"),
        (("bench",), "bench calls the driver through testers, and alone has none"),
        (("soak",), "the driver names no differential"),
        (("release",), "release makes packages of mdriver_c and mdriver_rust alone"),
        (("test", "--rule", "R1"), "the driver alone has no contract"),
        (("test", "--module", "odl"), "--module odl names no module; there are: old"),
        (("build", "rust"), "build rust names no module; there are: old"),
        (("test", "--tester", "c"), "--tester c names no tester; there are: none"),
        (("build", "--driver", "alnoe"), "--driver alnoe names no driver; there are: alone"),
        (("test", "--kernel", "toi"), "--kernel toi names no kernel; there are: toy"),
    ],
    ids=str,
)
def test_what_one_module_cannot_have_is_one_error(
    arguments: tuple[str, ...], why: str, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, ALONE)
    assert host.call(*arguments) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 1
    assert why in shown
    assert not host.vms


def test_a_mistyped_name_comes_with_the_nearest(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, ALONE)
    assert host.call("test", "--module", "odl") == ExitCode.USAGE
    assert "nearest: old" in capsys.readouterr().err


# -- what a project promises and lacks --------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('contract = "NO.md"\n', "the contract cannot be read"),
        ('contract = "VERSION"\n', "the contract has no rule"),
        ('uapi = ["no.h"]\n', "a header cannot be read"),
        (
            'testers.t = { project = "no_tester", package = "t" }\n',
            "a tester's project is missing",
        ),
    ],
)
def test_a_part_that_is_not_there_is_one_error_before_anything_is_made(
    more: str, why: str, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, ALONE + more)
    assert host.call("test") == ExitCode.USAGE
    assert why in capsys.readouterr().err
    assert not host.started


@pytest.mark.parametrize(("folder", "why"), [("empty", "has no test"), ("none", "is missing")])
def test_a_folder_of_tests_without_a_test_is_one_error(
    folder: str, why: str, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    (host.project_dir / "empty").mkdir(exist_ok=True)
    # What tests call or include is not one.
    for name in ("conftest.py", "_library.sh", "_part.c", "old.m32.c"):
        (host.project_dir / "empty" / name).touch()
    configure(host, ALONE.replace('"matrix"', f'"{folder}"'))
    assert host.call("test") == ExitCode.USAGE
    assert f"the matrix {why}" in capsys.readouterr().err
    assert not host.started


# -- several drivers --------------------------------------------------------------------------


def test_a_verb_works_on_each_driver_and_each_has_its_results(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, TWO)
    assert host.call("test") == ExitCode.PASSED
    assert host.vms == ["alone/test/vm-1", "ruled/test/vm-1"]
    modules = {
        name: [cell["module"] for cell in host.read(f"{name}/test/report.json")["cells"]]
        for name in ("alone", "ruled")
    }
    assert modules == {"alone": ["toy_c"], "ruled": ["toy_rust"]}
    shown = capsys.readouterr().out
    assert shown.index("driver alone") < shown.index("driver ruled")
    assert not (host.project_dir / "out/test").exists()


def test_a_named_driver_is_the_only_one(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    configure(host, TWO)
    assert host.call("test", "--driver", "ruled", "--rule", "R1") == ExitCode.PASSED
    assert host.vms == ["ruled/test/vm-1"]
    assert "driver ruled" not in capsys.readouterr().out


def test_a_driver_that_fails_ends_no_other(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    configure(
        host, TWO.replace('modules.old = "c_module"', 'modules.old = "c_module"\nuapi = ["x"]')
    )
    assert host.call("test") == ExitCode.USAGE
    assert host.vms == ["ruled/test/vm-1"]
    assert "driver alone: error: a header cannot be read" in capsys.readouterr().err


def test_the_exit_code_of_several_drivers_is_the_gravest(host: Host) -> None:
    configure(host, TWO)
    failing = fakevm.run_test("R2", "failed", "no")
    host.play_cell("old", fakevm.begin("old"), *failing, fakevm.end("failed"))
    assert host.call("test") == ExitCode.TESTS_FAILED
    assert host.read("ruled/test/report.json")["totals"]["failed"] == 0


def test_another_run_of_what_failed_names_its_driver(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, TWO)
    failing = fakevm.run_test("R2", "failed", "no")
    host.play_cell(
        "new", fakevm.begin("new"), *fakevm.run_test("R1"), *failing, fakevm.end("failed")
    )
    assert host.call("test") == ExitCode.TESTS_FAILED
    again = "run again: twinmod test --rule R2 --module new --driver ruled --cold"
    assert again in capsys.readouterr().out


def test_json_of_several_drivers_is_a_document_of_each(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, TWO)
    assert host.call("build", "--json") == ExitCode.PASSED
    text, found = capsys.readouterr().out.lstrip(), []
    while text:
        document, end = json.JSONDecoder().raw_decode(text)
        found.append(document["products"][0]["module"])
        text = text[end:].lstrip()
    assert found == ["toy_c", "toy_rust"]


@pytest.mark.parametrize("arguments", [("shell",), ("zoo", "--list"), ("release",)], ids=str)
def test_a_verb_for_one_driver_wants_it_named(
    arguments: tuple[str, ...], host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(host, TWO)
    assert host.call(*arguments) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "there are several" in shown
    assert "alone, ruled" in shown


def test_prune_knows_what_each_driver_uses(host: Host) -> None:
    # The second one's programs include a header.
    configure(host, TWO + 'uapi = ["VERSION"]\n')
    # What tests of other projects left.
    assert host.call("cache", "prune") == ExitCode.PASSED
    assert host.call("test") == ExitCode.PASSED
    before = cache.list_entries()
    assert len({name for kind, name, *_ in before if kind == "programs"}) == 2
    assert host.call("cache", "prune") == ExitCode.PASSED
    assert cache.list_entries() == before

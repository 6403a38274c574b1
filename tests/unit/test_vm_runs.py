# SPDX-License-Identifier: GPL-2.0-only
"""VMs that run: what becomes of cells when one stalls, falls silent, dies, or says garbage.

QEMU is a program that plays a script; everything else is as it is in a run. See tests/fakevm.
"""

import json
import os
from pathlib import Path

import pytest

import fakevm
from fakevm import BOOT, CELLS, END, KILL, REST, SILENCE, Bench, Host, MakeElf
from twinmod.base import cache
from twinmod.base.progress import Progress
from twinmod.cells.model import CellResult, DifferentialCell
from twinmod.cells.transcript import End
from twinmod.errors import VmLostError
from twinmod.guest import protocol
from twinmod.guest.protocol import Request
from twinmod.vm import accelerator, session
from twinmod.vm.machine import Accelerator

C_C, C_RUST, RUST_C, RUST_RUST = NAMES = tuple(cell.name for cell in CELLS)

#: A VM that is to be given up on says nothing for so long.
SILENCE_TIMEOUT_S = 0.2

#: The same, where another VM of the run has to have begun within it.
BOOT_TIMEOUT_S = 1.0

ALIVE = fakevm.say(protocol.Alive())


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Host:
    return fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)


@pytest.fixture
def bench(host: Host, progress: Progress) -> Bench:
    return fakevm.make_bench(host, progress)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the end of a VM that the host gave up on."""
    monkeypatch.setattr(session, "POWER_OFF_TIMEOUT_S", 0.05)


def find_outcomes(results: tuple[CellResult, ...]) -> dict[str, str]:
    assert len({result.cell.name for result in results}) == len(results), "a cell ended twice"
    return {result.cell.name: result.outcome.value for result in results}


# -- cells and the VMs that they take ---------------------------------------------------------


def test_all_cells_of_a_run_have_one_vm(
    bench: Bench, host: Host, progress: Progress, told: list[str]
) -> None:
    results, boots = bench.run_cells(progress)
    assert find_outcomes(results) == dict.fromkeys(NAMES, "passed")
    assert [[test.id for test in result.tests] for result in results] == [["R1", "R2"]] * 4
    assert {result.vm for result in results} == {1}
    assert host.vms == ["test/vm-1"]
    assert (boots.total, boots.stalled) == (1, 0)
    assert {(number, title) for number, title, _ in boots.phases} >= {(1, "boot")}
    assert f"VM 1 (tcg): {' '.join(NAMES)}" in told
    assert {f"{C_C}, 2 done", f"{RUST_RUST}, 2 done"} <= set(told)


def test_a_crash_ends_its_cell_and_the_rest_have_a_fresh_vm(
    bench: Bench, host: Host, progress: Progress
) -> None:
    began = (fakevm.begin(C_RUST, 2.0), fakevm.begin_test("R1", "R1", at_s=2.5))
    host.play("vm-1", BOOT, ("cell", C_C), *began, ("console", fakevm.OOPS), KILL)
    results, boots = bench.run_cells(progress)
    assert find_outcomes(results) == {**dict.fromkeys(NAMES, "passed"), C_RUST: "crashed"}
    assert [result.vm for result in results] == [1, 1, 2, 2]
    assert boots.total == 2
    (fault,) = results[1].kernel_faults
    assert (fault.kind, fault.test) == ("oops", "R1")
    assert fault.log.endswith("vm-1/results/console.log")
    (test,) = results[1].tests
    assert (test.id, test.outcome) == ("R1", "crashed")


def test_a_fault_in_a_module_has_the_line_of_its_source(
    bench: Bench, host: Host, progress: Progress
) -> None:
    frame = "[    3.000000][    T7] RIP: 0010:toy_c_read+0x0/0x10 [toy_c]\n"
    oops = f"{fakevm.OOPS}{frame}"
    host.play("vm-1", BOOT, fakevm.begin(C_C, 2.0), ("console", oops), KILL)
    results, _ = bench.run_cells(progress)
    (fault,) = results[0].kernel_faults
    assert [frame.place for stack in fault.stacks for frame in stack.frames] == ["toy_c.c:7"]


def test_a_vm_that_dies_between_two_cells_takes_none_with_it(
    bench: Bench, host: Host, progress: Progress
) -> None:
    host.play("vm-1", BOOT, ("cell", C_C), ("cell", C_RUST), KILL)
    host.play("vm-2", BOOT, ("cell", RUST_C), KILL)
    results, boots = bench.run_cells(progress)
    assert find_outcomes(results) == dict.fromkeys(NAMES, "passed")
    assert [result.vm for result in results] == [1, 1, 2, 3]
    assert boots.total == 3
    plans = [
        json.loads((bench.out_dir / f"vm-{n}/results/plan.json").read_text()) for n in (1, 2, 3)
    ]
    told = [[cell["name"] for cell in plan["cells"]] for plan in plans]
    assert told == [[*NAMES], [RUST_C, RUST_RUST], [RUST_RUST]]


def test_a_vm_that_dies_in_a_cell_is_lost_with_it(
    bench: Bench, host: Host, progress: Progress
) -> None:
    host.play("vm-1", BOOT, fakevm.begin(C_C), fakevm.begin_test("R1", "R1"), KILL)
    results, _ = bench.run_cells(progress)
    assert find_outcomes(results) == {**dict.fromkeys(NAMES, "passed"), C_C: "lost"}
    assert results[0].problems == ("the VM was gone before the cell ended",)


@pytest.mark.usefixtures("_impatient")
def test_a_vm_that_falls_silent_in_a_cell_is_given_up_on(host: Host, progress: Progress) -> None:
    bench = fakevm.make_bench(host, progress, silence_timeout_s=SILENCE_TIMEOUT_S)
    host.play("vm-1", BOOT, fakevm.begin(C_C), fakevm.begin_test("R1", "R1"), SILENCE)
    results, boots = bench.run_cells(progress)
    assert find_outcomes(results) == {**dict.fromkeys(NAMES, "passed"), C_C: "timeout"}
    assert results[0].problems == ("the VM fell silent",)
    assert (boots.total, boots.stalled) == (2, 0)
    assert not host.left


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("outcome", ["timeout", "passed"])
def test_a_vm_that_does_not_power_off_is_not_waited_for(
    host: Host, progress: Progress, outcome: str
) -> None:
    # Its last word is said: what it may take to say another one does not matter any more.
    bench = fakevm.make_bench(host, progress, silence_timeout_s=3600.0)
    begun = (BOOT, fakevm.begin(C_C), fakevm.begin_test("R1", "R1"))
    host.play("vm-1", *begun, fakevm.end(outcome), fakevm.say(protocol.Ended()), SILENCE)
    results, boots = bench.run_cells(progress)
    assert find_outcomes(results) == {**dict.fromkeys(NAMES, "passed"), C_C: outcome}
    assert (boots.total, boots.stalled) == (2, 0)
    assert not host.left


# -- boots ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_impatient")
def test_a_boot_that_stalls_is_counted_and_the_vm_booted_again(
    host: Host, progress: Progress, told: list[str]
) -> None:
    bench = fakevm.make_bench(host, progress, boot_timeout_s=BOOT_TIMEOUT_S)
    host.play("vm-1", ("console", "[    0.1] Booting\n"), SILENCE)
    results, boots = bench.run_cells(progress)
    assert find_outcomes(results) == dict.fromkeys(NAMES, "passed")
    assert (boots.total, boots.stalled) == (2, 1)
    assert {result.vm for result in results} == {2}
    why = "the last line of its console is: Booting"
    assert f"the VM did not boot within 1 s, {why}; once more" in told
    assert not host.left


@pytest.mark.usefixtures("_impatient")
def test_boots_that_stall_too_often_end_the_run(
    host: Host, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "STALLED_BOOTS", 1)
    bench = fakevm.make_bench(host, progress, boot_timeout_s=SILENCE_TIMEOUT_S)
    host.play("test", SILENCE)
    host.play("vm-1", SILENCE)
    host.play("vm-2", SILENCE)
    with pytest.raises(VmLostError, match="the VM fell silent before its first cell"):
        bench.run_cells(progress)
    assert not (bench.out_dir / "vm-3").exists()
    assert not host.left


def test_a_vm_whose_kernel_panics_ends_the_run_with_its_words(
    bench: Bench, host: Host, progress: Progress
) -> None:
    panic = "Kernel panic - not syncing: No working init found."
    host.play(
        "vm-1", ("console", f"[    0.2] {panic}\n"), ("stderr", "qemu: no memory\n"), ("exit", 1)
    )
    with pytest.raises(VmLostError) as caught:
        bench.run_cells(progress)
    ended = "the VM ended before its first cell"
    assert caught.value.message == f"{ended}; its kernel said: {panic}"
    facts = dict(caught.value.facts)
    assert facts["QEMU"] == "qemu: no memory"
    assert facts["folder"].endswith("vm-1")
    assert host.vms == ["test/vm-1"]


def test_a_later_vm_that_does_not_boot_costs_only_what_was_left(
    bench: Bench, host: Host, progress: Progress
) -> None:
    host.play("vm-1", BOOT, ("cell", C_C), KILL)
    host.play("vm-2", BOOT, ("exit", 0))
    results, boots = bench.run_cells(progress)
    assert find_outcomes(results) == {C_C: "passed", **dict.fromkeys(NAMES[1:], "lost")}
    why = "the VM ended before its first cell; it said nothing"
    assert {result.problems for result in results[1:]} == {(why,)}
    assert boots.total == 2


# -- what a kernel complains of, and what it does not -----------------------------------------


def test_a_race_of_the_kernels_own_code_ends_nothing_and_is_told(
    bench: Bench, host: Host, progress: Progress, told: list[str]
) -> None:
    host.play("vm-1", BOOT, ("console", fakevm.FOREIGN_RACE), REST, END)
    results, _ = bench.run_cells(progress)
    assert find_outcomes(results) == dict.fromkeys(NAMES, "passed")
    assert "1 data races in the kernel's own code, none in a module" in told


def test_a_race_in_a_module_ends_the_cell_that_it_came_in(
    bench: Bench, host: Host, progress: Progress
) -> None:
    cell = (fakevm.begin(C_C, 2.0), fakevm.end())
    host.play("vm-1", BOOT, *cell, ("console", fakevm.OWN_RACE), fakevm.begin(C_RUST, 4.0), KILL)
    results, _ = bench.run_cells(progress)
    assert find_outcomes(results)[C_C] == "crashed"
    assert [fault.kind for fault in results[0].kernel_faults] == ["kcsan"]


def test_what_a_program_wrote_to_the_log_is_no_fault(
    bench: Bench, host: Host, progress: Progress
) -> None:
    said = fakevm.say(protocol.WrittenByProgram(line=fakevm.OOPS.rstrip("\n")))
    host.play("vm-1", BOOT, ("console", fakevm.OOPS), said, REST, END)
    results, boots = bench.run_cells(progress)
    assert find_outcomes(results) == dict.fromkeys(NAMES, "passed")
    assert boots.total == 1


# -- what a VM says ---------------------------------------------------------------------------


def test_garbage_between_lines_is_no_event(bench: Bench, host: Host, progress: Progress) -> None:
    garbage = ("raw", 'SeaBIOS\n\udcff\udcfe\n{}\n[1\n{"event": 7}\n\n')
    host.play("vm-1", garbage, BOOT, garbage, REST, garbage, END)
    results, _ = bench.run_cells(progress)
    assert find_outcomes(results) == dict.fromkeys(NAMES, "passed")


def test_half_a_line_is_no_event(bench: Bench, host: Host, progress: Progress) -> None:
    _, line = fakevm.end()
    host.play("vm-1", BOOT, fakevm.begin(C_C), ("raw", line[: len(line) // 2]), KILL)
    results, _ = bench.run_cells(progress)
    assert find_outcomes(results) == {**dict.fromkeys(NAMES, "passed"), C_C: "lost"}


def test_an_event_of_another_protocol_ends_the_vm_and_the_run(
    bench: Bench, host: Host, progress: Progress
) -> None:
    host.play("vm-1", BOOT, ("raw", '{"event": "quantum"}\n'), ("child",), SILENCE)
    with pytest.raises(VmLostError, match="agent is not of this version"):
        bench.run_cells(progress)
    assert len(host.started) > 1
    assert not host.left


def test_what_a_vm_says_is_kept_as_it_comes_and_answers_are_not(bench: Bench, host: Host) -> None:
    seen: list[str] = []
    request = Request(size=4096, tester="c", steps=(("put", {"value": 3}),))
    answers: list[object] = []

    def converse(vm: session.Vm) -> None:
        answers.extend(list(vm.ask(request).answers.values()) for _ in range(3))

    host.play("vm-1", BOOT, REST, ("stderr", "a warning\n"), END)
    work = bench.plan_matrix(CELLS[0], DifferentialCell(package="adding"))
    end = bench.boot(work, seen.append, converse)
    assert answers == [[[[3, 0], [3]]] * 2] * 3
    assert (end.end, end.qemu_log) == (End.EXITED, "a warning\n")
    assert [cell.outcome for cell in end.transcript.cells] == ["passed", "passed"]
    kept = (bench.out_dir / "vm-1/events.jsonl").read_text().splitlines()
    assert kept == seen
    kinds = [json.loads(line)["event"] for line in kept]
    assert (kinds[0], kinds[-1]) == ("boot", "end")
    assert "ready" in kinds
    assert "answer" not in kinds
    assert not (bench.out_dir / "vm-1/initramfs").exists()


# -- the end of a VM --------------------------------------------------------------------------


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_ends_a_vm_and_all_that_it_started(
    bench: Bench, host: Host, progress: Progress
) -> None:
    host.play("vm-1", BOOT, fakevm.begin(C_C), ("child",), ("interrupt",), SILENCE)
    with pytest.raises(KeyboardInterrupt):
        bench.run_cells(progress)
    assert sum("child" in one for one in host.started) == 1
    assert not host.left
    assert not (bench.out_dir / "vm-1/initramfs").exists()


@pytest.mark.usefixtures("_impatient")
def test_a_vm_that_talks_for_ever_lives_no_longer_than_it_may(bench: Bench, host: Host) -> None:
    host.play("vm-1", BOOT, ("chatter", ALIVE[1]))
    end = bench.boot(bench.plan_differential(BOOT_TIMEOUT_S))
    assert end.end == End.SILENT
    assert end.transcript.booted
    assert not host.left


@pytest.mark.usefixtures("_impatient")
def test_a_vm_that_said_its_last_word_and_stays_is_ended(bench: Bench, host: Host) -> None:
    host.play("vm-1", BOOT, REST, END, ("close",))
    end = bench.boot(bench.plan_matrix(*CELLS))
    assert end.end == End.SILENT
    assert {cell.outcome for cell in end.transcript.cells} == {"passed"}
    assert not host.left


# -- a VM for requests ------------------------------------------------------------------------

PUT = Request(size=4096, tester="c", steps=(("put", {"value": 3}), ("take", {"value": 2})))


def test_a_vm_for_requests_answers_until_there_are_no_more(bench: Bench, host: Host) -> None:
    with bench.serve() as vm:
        for _ in range(2):
            answers = vm.ask(PUT).answers
            assert list(answers) == ["toy_c", "toy_rust"]
            assert list(answers.values()) == [[[3, 0], [2, 1], [5]]] * 2
        assert host.alive
    assert not host.left
    assert vm.end == End.EXITED
    (plan,) = bench.out_dir.glob("again/results/plan.json")
    assert [cell["name"] for cell in json.loads(plan.read_text())["cells"]] == ["differential"]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(("how", "end"), [("die", End.EXITED), ("silent", End.SILENT)])
def test_a_vm_that_dies_of_a_request_is_gone(
    host: Host, progress: Progress, how: str, end: End
) -> None:
    bench = fakevm.make_bench(host, progress, silence_timeout_s=SILENCE_TIMEOUT_S)
    host.play_cell("differential", *fakevm.serve(**{"from": 3, "how": how}))
    with bench.serve() as vm:
        with pytest.raises(session.VmGoneError):
            vm.ask(PUT)
        # Nobody is there to hear it.
        vm.say(PUT)
    assert vm.end == end
    assert not host.left


def test_a_vm_that_does_not_become_ready_is_an_error(bench: Bench, host: Host) -> None:
    host.play("again", BOOT, ("exit", 0))
    with pytest.raises(VmLostError, match="before its first cell"), bench.serve():
        pytest.fail("it is not ready")
    assert not host.left


# -- recorded ---------------------------------------------------------------------------------


def test_a_recorded_vm_leaves_all_that_a_replay_takes(
    host: Host, progress: Progress, told: list[str]
) -> None:
    bench = fakevm.make_bench(host, progress, recorded=True)
    results, _ = bench.run_cells(progress)
    assert find_outcomes(results) == dict.fromkeys(NAMES, "passed")
    vm_dir = bench.out_dir / "vm-1"
    for name in ("initramfs", "recording/execution", "recording.json", "results/plan.json"):
        assert (vm_dir / name).is_file(), name
    assert any(title.startswith("VM 1 (record): ") for title in told)
    content = (vm_dir / "initramfs").read_bytes()
    for name in ("results/plan.json", "twinmod/matrix/test_toy.py", "twinmod/module/toy_c.ko"):
        assert name.encode() in content
    for name in ("proc", "sys", "tmp"):
        assert f"{name}\0".encode() in content, "it has nowhere to mount it"


# -- what it runs on --------------------------------------------------------------------------


@pytest.fixture
def _kvm(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this host have a KVM that nobody has tried yet, and keep what becomes of it here."""
    del bench
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm" or access(path, mode))
    monkeypatch.setenv("TWINMOD_CACHE_DIR", str(tmp_path / "cache"))


def try_kvm(host: Host, bench: Bench, *script: fakevm.Act) -> Accelerator:
    """Return what a VM would run on where one that tries KVM plays a script; it is tried once."""
    host.play("probe", *script)
    found = bench.find_accelerator()
    known = json.loads((cache.find_cache_dir() / "accelerator.json").read_text())
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert known["identity"].startswith(f"{boot_id} toy-"), "what this boot found is not the next's"
    probes = len(host.started)
    assert bench.find_accelerator() == found
    assert len(host.started) == probes, "it was tried again"
    assert not host.left
    return found


@pytest.mark.usefixtures("_kvm")
@pytest.mark.parametrize(
    ("script", "name", "reason"),
    [
        ((("console", f"[    0.1] {accelerator.PROBE_LINE}\n"),), "kvm", "a guest booted with it"),
        ((("stderr", "MSR 0x345\n"), ("exit", 134)), "tcg", "status 134; QEMU said: MSR 0x345"),
    ],
)
def test_kvm_is_what_a_guest_booted_with_and_that_is_remembered(
    host: Host, bench: Bench, script: tuple[fakevm.Act, ...], name: str, reason: str
) -> None:
    found = try_kvm(host, bench, *script)
    assert found.name == name
    assert reason in found.reason
    (check,) = accelerator.check_vm(found)
    assert check.found == f"{name} ({found.reason})"


@pytest.mark.usefixtures("_kvm")
def test_kvm_that_a_guest_hangs_on_is_not_used(
    host: Host, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "PROBE_TIMEOUT_S", SILENCE_TIMEOUT_S)
    found = try_kvm(host, bench, SILENCE)
    assert found.name == "tcg"
    assert "it did not reach its first program within" in found.reason

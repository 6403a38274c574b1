# SPDX-License-Identifier: GPL-2.0-only
"""Runs that count instructions, in clones of a VM that booted, with QEMU played by a program.

bwrap is a program that plays a script; everything else is as it is in a run. See tests/fakevm.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import fakevm
from fakevm import BOOT, KILL, Host, MakeElf
from twinmod.base import cache
from twinmod.base.progress import Progress
from twinmod.errors import ExitCode
from twinmod.vm import boot, machine, snapshot

EXACT = ("bench", "--quick", "--mode", "exact")

#: The VM that boots and is saved.
BASE = "vm-0"

#: The clones of a quick benchmark: one for each cell, and one for the yardsticks.
CLONES = [f"bench/exact-1/vm-{number}" for number in range(1, 6)]


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    made = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    folder = cache.find_cache_dir() / snapshot.COUNTING
    cache.remove_tree(folder)
    yield made
    cache.remove_tree(folder)


def list_bases() -> list[Path]:
    folder = cache.find_cache_dir() / snapshot.COUNTING
    return sorted(path for path in folder.glob("*") if (path / cache.RECORD).exists())


def list_words(host: Host, *vms: str) -> list[list[str]]:
    """Return QEMU's arguments of each VM whose folder's path ends so."""
    return [one["argv"] for one in host.started if "argv" in one and one["vm"].endswith(vms)]


def find_value(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_every_cell_begins_with_the_memory_of_one_vm_that_booted(host: Host) -> None:
    assert host.call(*EXACT) == ExitCode.PASSED
    assert host.call(*EXACT) == ExitCode.PASSED
    assert sorted(host.vms) == sorted(2 * CLONES)
    (booted,) = list_words(host, BASE)
    clones = list_words(host, *CLONES)
    assert clones == [clones[0]] * 10
    assert find_value(booted, "-append").endswith(" tsc=reliable clocksource=tsc")
    assert "-incoming" in clones[0]
    assert "-plugin" in clones[0]
    for name in ("-icount", "-seed", "-rtc", "-cpu", "-m", "-device"):
        assert find_value(booted, name) == find_value(clones[0], name)


def test_what_is_delivered_to_cells_that_count_is_the_same_in_every_run(host: Host) -> None:
    assert host.call(*EXACT) == ExitCode.PASSED
    assert host.call(*EXACT) == ExitCode.PASSED
    given = [one for one in host.started if "delivered" in one]
    assert [one["entropy"] for one in given] == ["00" * 32] * 10
    assert {one["time_s"] for one in given} == {1_800_000_000.0}
    assert sorted({len(one["delivered"]) for one in given}) == [1, 2], "yardsticks get both modules"
    left = (host.project_dir / "out/bench").rglob(machine.DELIVERY)
    assert list(left) == [], "it has some megabytes"


def test_a_whole_benchmark_counts_after_two_boots_with_a_memory_of_their_own(host: Host) -> None:
    assert host.call("bench", "--mode", "exact") == ExitCode.PASSED
    assert host.read("bench/report.json")["exact"]["vms"] == 2
    seeds = [find_value(words, "-seed") for words in list_words(host, BASE)]
    assert sorted(seeds) == ["1", "2"]
    assert len(list_bases()) == 2
    origins = {name.split("/")[1] for name in host.vms}
    assert origins == {"exact-1", "exact-2"}
    for number in ("1", "2"):
        words = list_words(host, *(f"exact-{number}/vm-{n}" for n in range(1, 6)))
        assert {find_value(one, "-seed") for one in words} == {number}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ((BOOT, ("waiting",), ("save", "edu cannot be saved")), "QEMU refuses migrate: edu cannot"),
        ((BOOT, KILL), "the VM ended before its first cell"),
    ],
)
def test_where_no_vm_can_be_saved_one_boots_for_all_cells_with_the_same_root(
    host: Host,
    script: tuple[fakevm.Act, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host.play(BASE, *script)
    assert host.call(*EXACT) == ExitCode.PASSED
    assert f"no clones, so each VM boots: {said}" in capsys.readouterr().err
    assert host.vms == [CLONES[0]]
    (words,) = list_words(host, CLONES[0])
    assert "-virtfs" not in words, "what its root lies on is part of what a call costs"
    assert "-plugin" in words
    assert host.read("bench/report.json")["results"]


def test_a_clone_that_counts_and_dies_costs_no_other_cell_anything(host: Host) -> None:
    host.play_cell("rust/c", fakevm.begin("@CELL@"), ("file", "counts", ""), KILL)
    assert host.call(*EXACT) == ExitCode.VM_LOST
    counted = {
        (entry["module"], entry["tester"]) for entry in host.read("bench/report.json")["results"]
    }
    assert counted == {("toy_c", "c"), ("toy_c", "rust"), ("toy_rust", "rust")}


def test_whatever_a_vm_has_whose_clones_count_is_in_its_key(
    host: Host, progress: Progress, tmp_path: Path
) -> None:
    plain = fakevm.make_bench(host, progress).setting
    setting = boot.plan_exact(plain)
    userland = setting.userland
    (spec, _), *others = userland.tester_dirs
    changed = (
        plain,
        replace(setting, seed=1),
        replace(setting, native_dir=tmp_path / "other"),
        replace(setting, chroot=replace(setting.chroot, key="other")),
        replace(setting, tree=replace(setting.tree, parameters=("hardened_usercopy=off",))),
        replace(setting, userland=replace(userland, site_dir=tmp_path)),
        replace(setting, userland=replace(userland, tester_dirs=((spec, tmp_path), *others))),
    )
    keys = {snapshot.read_base_key(one) for one in (setting, *changed)}
    assert len(keys) == 1 + len(changed)
    # The same package of the VM's programs, with another matrix beside it.
    programs_dir = tmp_path / "programs"
    programs_dir.mkdir()
    (programs_dir / "package").symlink_to(userland.programs_dir / "package")
    same = replace(setting, userland=replace(userland, programs_dir=programs_dir))
    assert snapshot.read_base_key(same) == snapshot.read_base_key(setting)


def test_the_last_vms_whose_clones_count_are_kept(host: Host) -> None:
    folder = cache.find_cache_dir() / snapshot.COUNTING
    for number in range(3):
        (folder / f"toy-00000000000{number}").mkdir(parents=True)
        os.utime(folder / f"toy-00000000000{number}", (number, number))
    kept = [name for kind, name in snapshot.find_kept("toy") if kind == snapshot.COUNTING]
    assert kept == ["toy-000000000002", "toy-000000000001"]

# SPDX-License-Identifier: GPL-2.0-only
"""A project says what its benchmark is to reach and to show, and may say nothing of it."""

from pathlib import Path

import pytest
from msgspec import structs

from twinmod.base import templates
from twinmod.bench import figures
from twinmod.bench import project as bench_project
from twinmod.bench.project import ProjectBench
from twinmod.errors import ConfigError
from twinmod.guest.protocol import LoopShape
from twinmod.project import config as project_config
from twinmod.project.config import Config

CHECKOUT = Path(__file__).resolve().parents[2]

LOOP = 'size-bytes = 4096\npasses = 3\nname = "Reads"\ntitle = "Why"\n'


@pytest.fixture
def config(tmp_path: Path) -> Config:
    found = project_config.read_config(CHECKOUT)
    return structs.replace(found, bench_path=tmp_path / "own.toml")


def read(config: Config, text: str) -> ProjectBench:
    assert config.bench_path is not None
    config.bench_path.write_text(text)
    return bench_project.read_bench(config)


def test_a_project_that_names_no_file_wants_nothing(config: Config) -> None:
    found = bench_project.read_bench(structs.replace(config, bench_path=None))
    assert found == ProjectBench()
    assert found.demonstration is None
    assert not any(structs.asdict(found.goals).values())


def test_an_empty_file_wants_nothing(config: Config) -> None:
    assert read(config, "") == ProjectBench()


def test_goals_and_a_loop_are_read(config: Config) -> None:
    found = read(config, f"[goals.rust]\nat-most = 2\n[demonstration]\n{LOOP}")
    assert found.goals.rust is not None
    assert (found.goals.rust.at_most, found.goals.copy) == (2.0, None)
    assert found.demonstration is not None
    assert found.demonstration.shape == LoopShape(size_bytes=4096, passes=3)
    assert figures.plan_exact(quick=True, loop=found.demonstration.shape).loop == LoopShape(
        size_bytes=4096, passes=3
    )


def test_the_project_that_twinmod_ships_with_wants_something_of_each_kind() -> None:
    found = bench_project.read_bench(project_config.read_config(CHECKOUT))
    assert all(structs.asdict(found.goals).values())
    assert found.demonstration is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("goal = 1", "`goal`"),
        ("goals = 1", "$.goals"),
        ("[goals.speed]\nat-most = 1", "`speed` - at `$.goals`"),
        ("[goals.rust]\nmost = 1", "`most` - at `$.goals.rust`"),
        ("[goals.rust]\nat_most = 1", "`at_most` - at `$.goals.rust`"),
        ("[goals.rust]", "`at-most` - at `$.goals.rust`"),
        ("[goals]\nrust = 1", "$.goals.rust"),
        ('[goals.rust]\nat-most = "1"', "$.goals.rust.at-most"),
        ("[goals.rust]\nat-most = true", "$.goals.rust.at-most"),
        ("[goals.rust]\nat-most = 0", "$.goals.rust.at-most"),
        ("[goals.rust]\nat-most = -1", "$.goals.rust.at-most"),
        ("[goals.rust]\nat-most = nan", "$.goals.rust.at-most"),
        ("[goals.rust]\nat-most = inf", "`at-most` is not finite - at `$.goals.rust`"),
        ("[goals.rust]\nat-most = 1\nfrom-bytes = 0", "$.goals.rust.from-bytes"),
        ("[goals.rust]\nat-most = 1\nto-bytes = 0", "`to-bytes` is below `from-bytes`, 1"),
        ("[goals.rust]\nat-most = 1\nfrom-bytes = 9\nto-bytes = 8", "`from-bytes`, 9"),
        ("[goals.rust]\nat-most = 1\nfrom-bytes = 9.5", "$.goals.rust.from-bytes"),
        ("[demonstration]\npasses = 3", "- at `$.demonstration`"),
        (f"[demonstration]\n{LOOP}colour = 1", "`colour` - at `$.demonstration`"),
        (f"[demonstration]\n{LOOP}".replace("4096", "0"), "$.demonstration.size-bytes"),
        (f"[demonstration]\n{LOOP}".replace("4096", "16777217"), "$.demonstration.size-bytes"),
        (f"[demonstration]\n{LOOP}".replace("= 3", "= 0"), "$.demonstration.passes"),
        (f"[demonstration]\n{LOOP}".replace("= 3", "= 101"), "$.demonstration.passes"),
        (f"[demonstration]\n{LOOP}".replace('"Why"', "1"), "$.demonstration.title"),
        ("[goals", "at end of document"),
        ("a = " + "[" * 5000, "recursion"),
    ],
)
def test_what_the_file_cannot_say_is_refused_by_its_key(
    text: str, told: str, config: Config
) -> None:
    with pytest.raises(ConfigError, match="names is not valid") as caught:
        read(config, text)
    assert told in caught.value.message
    assert caught.value.facts == (("file", str(config.bench_path)),)


@pytest.mark.parametrize("kind", ["absent", "a folder", "bytes"])
def test_a_file_that_cannot_be_read_is_named_with_the_key_that_names_it(
    kind: str, config: Config
) -> None:
    assert config.bench_path is not None
    if kind == "a folder":
        config.bench_path.mkdir()
    if kind == "bytes":
        config.bench_path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"`bench` of the driver names") as caught:
        bench_project.read_bench(config)
    assert caught.value.facts == (("file", str(config.bench_path)),)


def test_the_toolchain_names_no_driver_of_its_own_in_a_benchmark() -> None:
    for path in sorted((templates.PACKAGE_DIR / "bench").glob("*.py")):
        assert "mdriver" not in path.read_text(), path.name

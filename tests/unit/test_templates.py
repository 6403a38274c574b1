# SPDX-License-Identifier: GPL-2.0-only
"""Templates render strictly, and what they render is what sh and make can read."""

import shlex
from pathlib import Path

import pytest

from twinmod.base import process, templates
from twinmod.base.process import Command
from twinmod.errors import ConfigError

TEMPLATES = templates.find_resource("templates")

#: Rendered by test_html.py and test_manual.py, where what they show is made.
ELSEWHERE = ("configuration.md.j2", "report.html.j2", "twinmod.1.j2")

#: Every other template, with all that it may use. A space, a quote and a dollar are in the values.
VALUES: dict[str, dict[str, object]] = {
    "Kbuild.j2": {"module": "mdriver_c", "version": "0.1.0"},
    "Makefile.j2": {
        "module": "mdriver_c",
        "release": "7.3.4+deb13-amd64",
        "subdirs": "samples/rust/x",
        "command": shlex.join(("echo", "a folder/$HOME", "it's")).replace("$", "$$"),
    },
    "twinmod.toml.j2": {"modules": ({"driver": "echo", "label": "c", "name": "echo"},)},
    "init.j2": {
        "probe": "",
        "source_time": 0,
        "counted": True,
        "layered": True,
        "vm_modules": ("9p.ko", "overlay.ko"),
        "environment": (("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8")),
    },
}

#: All that the templates of the packages use; each is rendered as a package, and shell among it
#: read, in test_packages.py.
PACKAGE = {
    "package": "mdriver-rust-dkms",
    "name": "mdriver-rust",
    "module": "mdriver_rust",
    "version": "0.1.0",
    "group": "mdriver",
    "commit": "1a2b",
    "year": 2026,
    "maintainer": "A Name <name@host.example>",
    "date": "2026-11-27",
    "changed": "Fri, 27 Nov 2026 03:00:26 +0000",
    "layout_flags": "-g",
    "sources": "Kbuild mdriver_rust.rs",
}

#: The names of PACKAGE that each of them uses.
USED = {
    "60-mdriver.rules": ("group",),
    "changelog": ("package", "version", "commit", "maintainer", "changed"),
    "copyright": ("year",),
    "crates": ("version", "layout_flags", "sources"),
    "deb.postinst": ("package", "name", "version"),
    "deb.postrm": ("package",),
    "deb.prerm": ("name", "version"),
    "dkms.conf": ("name", "module", "version"),
    "hook": (),
    "mdriver-rust-crates": ("version",),
    "mdriver-rust-crates.8": ("date", "version"),
    "mdriver.4": ("date", "version", "group"),
    "modprobe.conf": (),
    "modules-load.conf": (),
    "rpm.post": ("package", "name", "version"),
    "rpm.postun": (),
    "rpm.preun": ("name", "version"),
    "sysusers.conf": ("group",),
    "README": ("package", "module", "name", "version"),
}

VALUES |= {f"dkms/{name}.j2": {key: PACKAGE[key] for key in used} for name, used in USED.items()}


def run(*argv: str) -> str:
    return process.run(Command(argv=argv, purpose=argv[0], timeout_s=30))


def test_every_template_is_rendered_here() -> None:
    names = {str(p.relative_to(TEMPLATES)) for p in TEMPLATES.rglob("*") if p.is_file()}
    # Those of a new project are rendered in test_starter.py.
    elsewhere = {*ELSEWHERE, *(name for name in names if name.startswith("new/"))}
    assert names == {*VALUES, *elsewhere}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_template_renders_and_ends_with_one_newline(name: str) -> None:
    text = templates.render_template(name, VALUES[name])
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "{{" not in text
    assert "{%" not in text


@pytest.mark.parametrize(
    ("name", "missing"), [(name, value) for name in sorted(VALUES) for value in VALUES[name]]
)
def test_a_missing_value_is_an_error_that_names_both(name: str, missing: str) -> None:
    values = {key: value for key, value in VALUES[name].items() if key != missing}
    with pytest.raises(ConfigError) as caught:
        templates.render_template(name, values)
    assert name in caught.value.message
    assert missing in caught.value.message


def test_a_template_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"nothing\.j2"):
        templates.render_template("nothing.j2", {})


@pytest.mark.parametrize(
    "changed", [{}, {"probe": "twinmod: the guest runs"}, {"source_time": 1, "vm_modules": ()}]
)
def test_the_rendered_init_is_a_shell_script(changed: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "init"
    path.write_text(templates.render_template("init.j2", {**VALUES["init.j2"], **changed}))
    assert run("sh", "-n", str(path)) == ""
    assert path.read_text().startswith("#!/bin/busybox sh\n")


def test_the_init_loads_its_modules_in_the_given_order() -> None:
    text = templates.render_template("init.j2", VALUES["init.j2"])
    loads = [line for line in text.splitlines() if "insmod" in line]
    assert loads == ["busybox insmod /modules/9p.ko", "busybox insmod /modules/overlay.ko"]


@pytest.mark.parametrize(
    ("source_time", "how"), [(0, "exec busybox switch_root /newroot "), (1, "exec ")]
)
def test_only_where_instructions_are_counted_do_addresses_not_change_from_boot_to_boot(
    source_time: int, how: str
) -> None:
    values = {**VALUES["init.j2"], "source_time": source_time}
    agent = "/usr/bin/python3 -m twinmod.guest.agent"
    counted = templates.render_template("init.j2", {**values, "counted": True})
    other = templates.render_template("init.j2", {**values, "counted": False})
    fixed = "/usr/bin/setarch --addr-no-randomize "
    assert counted.splitlines()[-1] == f"{how}{fixed}{agent}"
    assert other.splitlines()[-1] == f"{how}{agent}"


def test_an_init_whose_root_is_in_memory_mounts_nothing_of_the_host() -> None:
    given = {"source_time": 1, "vm_modules": ("virtio_console.ko",), "counted": False}
    text = templates.render_template("init.j2", {**VALUES["init.j2"], **given})
    assert not [word for word in ("9p", "overlay", "switch_root") if word in text]
    assert text.index("insmod /modules/virtio_console.ko") < text.index("exec /usr/bin/python3")
    assert text.rstrip().endswith("exec /usr/bin/python3 -m twinmod.guest.agent")


@pytest.mark.skipif(process.find_program("make") is None, reason="this host has no make")
@pytest.mark.parametrize("target", ["modules", "clean"])
def test_make_runs_the_command_that_the_makefile_was_given(target: str, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(
        templates.render_template("Makefile.j2", VALUES["Makefile.j2"])
    )
    goal = "all" if target == "modules" else target
    printed = run("make", "-n", "--no-print-directory", "-C", str(tmp_path), goal)
    assert shlex.split(printed) == ["echo", "a folder/$HOME", "it's", target]


def test_an_installed_copy_finds_what_its_wheel_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "templates").mkdir()
    # A comment sign of jinja2's that is a shell's expansion must come out as it is.
    (tmp_path / "templates/x.j2").write_text("n=${#1} {{ word }}\n")
    monkeypatch.setattr(templates, "PACKAGE_DIR", tmp_path)
    assert templates.render_template("x.j2", {"word": "<&>"}) == "n=${#1} <&>\n"


def test_a_copy_without_its_folders_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "PACKAGE_DIR", tmp_path)
    monkeypatch.setattr(templates, "_CHECKOUT_DIR", tmp_path)
    with pytest.raises(ConfigError, match="lacks the project mdriver"):
        templates.find_shipped_dir()
    with pytest.raises(ConfigError, match="lacks its 'templates'"):
        templates.find_resource("templates")

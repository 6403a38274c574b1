# SPDX-License-Identifier: GPL-2.0-only
"""What a VM has for its agent, as files of a folder, and the host's side of the port."""

import os
import pty
import select
import sys
import tty
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.guest import protocol
from twinmod.guest.protocol import (
    CellJob,
    Delivery,
    Job,
    Plan,
    PlannedCell,
    PlannedModule,
    Request,
)

LIMIT_S = 20.0

#: How a record of /dev/kmsg begins that the kernel itself wrote.
KERNEL = "4,1,3000000,-;"

TESTS = """\
import os
import signal
import pytest

@pytest.mark.rule("R1")
def test_device(request):
    name = request.config.getoption("--module")
    assert os.path.exists(f"/dev/{name}")

@pytest.mark.rule("R2")
def test_behaviour():
    how = os.environ.get("BEHAVIOUR", "")
    if how == "stuck":
        signal.pause()
    if how.startswith("kernel "):
        with open("/dev/kmsg", "w") as log:
            log.write(how.removeprefix("kernel "))
        signal.pause()
    assert how != "fail"
"""

TESTER = """\
import os
from types import SimpleNamespace

class Device:
    def __init__(self, path, flags=os.O_RDWR):
        self.file = os.open(path, flags)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.file)

    def fileno(self):
        return self.file

    def lseek(self, offset, whence):
        return os.lseek(self.file, offset, whence)

    def repeat(self, operation, count, **_):
        assert count > 0

    @staticmethod
    def repeat_open(path, count):
        assert os.path.exists(path)

    def count_up(self, threads, increments, method="lock"):
        target = threads * increments
        lost = int(os.environ.get("BEHAVIOUR") == "lose")
        return SimpleNamespace(target=target, actual=target - lost, real_s=0.5, user_s=0.25,
                               system_s=0.125)
"""

EXECUTOR = """\
def execute(path, tester, size, steps):
    assert tester is None or tester.Device(path)
    return [[size, name] for name, _ in steps]
"""

LOOP = """\
#!/bin/sh
[ ! -e WORLD/broken ] || { echo "no such device"; exit 3; }
echo "10 1 20 2"
echo "11 1 21 2"
"""

SHELL = """\
#!/bin/sh
echo "a shell: $*" >> WORLD/called
"""

BUSYBOX = """\
#!/bin/sh
echo "busybox: $*" >> WORLD/called
"""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What an agent said, and how it ended."""

    events: tuple[protocol.Event, ...]
    status: int
    output: str

    def find(self, kind: type[Any]) -> list[Any]:
        """Return its events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


#: After what an agent is told something.
ASKING = protocol.Ready | protocol.Answered | protocol.Waiting


def render(request: Request | Delivery | None) -> str:
    """Return the line that tells an agent something."""
    if isinstance(request, Delivery):
        return protocol.render_delivery(request)
    return protocol.render_request(request)


class World:
    """All that a VM has for its agent.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("results", "dev", "sys/module", "sys/class/virtio-ports/vport1p1", "bin"):
            (folder / name).mkdir(parents=True)
        (folder / "sys/class/virtio-ports/vport1p1/name").write_text("twinmod\n")
        (folder / "proc").mkdir()
        os.mkfifo(folder / "dev/kmsg")
        for name, text in {
            "tools/loop": LOOP,
            "bin/bash": SHELL,
            "usr/bin/ls": "",
            "tools/busybox": BUSYBOX,
            "matrix/test_toy.py": TESTS,
            "matrix/adding/__init__.py": "",
            "matrix/adding/executor.py": EXECUTOR,
            "site/toy_tester_c.py": TESTER,
            "site/toy_tester_rust.py": TESTER,
            "toy_c.ko": "",
            "toy_rust.ko": "",
            "dev/ttyS0": "",
        }.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("WORLD", str(folder)))
            path.chmod(0o755)

    @property
    def called(self) -> list[str]:
        """What was called that the world only notes, in that order."""
        path = self.folder / "called"
        return path.read_text().splitlines() if path.exists() else []

    def write(self, name: str, text: str) -> None:
        """Let something of the world be otherwise; see LOOP, and ``is_refused`` of guest.py."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def refuse(self, call: str, code: int) -> None:
        """Let each system call of a name fail with an errno."""
        self.write(call, str(code))

    def plan_cell(self, name: str, job: CellJob) -> PlannedCell:
        """Return a cell of a module by its name, as in "toy_c/c"."""
        module, _, tester = name.partition("/")
        path = str(self.folder / f"{module}.ko") if tester else ""
        return PlannedCell(
            name=name,
            module=module if tester else "",
            tester=tester,
            path=path,
            job=job,
        )

    def plan(self, job: CellJob | None, *cells: str, **values: Any) -> Plan:
        """Return what an agent is told: a job for each of some cells; None: there is a shell."""
        modules = {
            n: PlannedModule(path=str(self.folder / f"{n}.ko")) for n in ("toy_c", "toy_rust")
        }
        plan = Plan(
            mode=job.KIND if job else Job.SHELL,
            port="",
            cells=tuple(self.plan_cell(name, job) for name in cells if job),
            modules=modules,
            testers={"c": "toy_tester_c", "rust": "toy_tester_rust"},
            matrix=str(self.folder / "matrix"),
            version="0.1.0",
            limit_s=30.0,
            magic="magic.so",
            loop=str(self.folder / "tools/loop"),
        )
        return replace(plan, **values)

    def run(
        self,
        plan: Plan,
        requests: tuple[Request | Delivery, ...] = (),
        behaviour: str = "",
        pause: int = 0,
    ) -> Said:
        """Run the agent to its end; make the requests once it is ready for them.

        Args:
            plan: What it is told.
            requests: Made one after the other, each after an answer; a delivery, when it waits.
            behaviour: Of the device and its tests; see TESTS and TESTER.
            pause: How often the agent says that it is alive before the first request is made.
        """
        (self.folder / "results/plan.json").write_text(protocol.render_plan(plan))
        master, slave = pty.openpty()
        tty.setraw(slave)
        for name in ("vport1p1", "ttyS1"):
            (self.folder / "dev" / name).symlink_to(os.ttyname(slave))
        # As long as somebody writes to it, nobody who reads it sees its end.
        kernel = os.open(self.folder / "dev/kmsg", os.O_RDWR)
        toolchain = Path(protocol.__file__).parents[2]
        command = Command(
            argv=(sys.executable, str(Path(__file__).with_name("guest.py")), str(self.folder)),
            purpose="the agent",
            timeout_s=LIMIT_S,
            environment=(
                ("PATH", f"{self.folder / 'tools'}:{os.environ['PATH']}"),
                ("PYTHONPATH", f"{toolchain}:{self.folder / 'site'}"),
                ("PYTHONDONTWRITEBYTECODE", "1"),
                ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
                ("BEHAVIOUR", behaviour),
            ),
        )
        output_path = self.folder / "output"
        with output_path.open("wb") as output, process.start(command, stdout=output) as agent:
            events = tuple(self._converse(agent, master, requests, pause))
            status = agent.wait(LIMIT_S)
        for descriptor in (master, slave, kernel):
            os.close(descriptor)
        return Said(events=events, status=status, output=output_path.read_text())

    def _converse(
        self,
        agent: process.Process,
        master: int,
        requests: tuple[Request | Delivery, ...],
        pause: int,
    ) -> Iterator[protocol.Event]:
        """Yield what the agent says until it ends."""
        left = iter((*requests, None))
        asked = False
        rest = b""
        ended = os.pidfd_open(agent.pid)
        while True:
            ready, _, _ = select.select([master, ended], [], [], LIMIT_S)
            assert ready, "the agent says nothing and goes on"
            # The slave is open here too: the master has no end.
            chunk = os.read(master, 65536) if master in ready else b""
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                event = protocol.parse_event(line.decode())
                assert event is not None, line
                yield event
                asked = asked or isinstance(event, ASKING)
                pause -= asked and isinstance(event, protocol.Alive)
                if asked and pause <= 0:
                    os.write(master, render(next(left)).encode() + b"\n")
                    asked = False
            if not chunk:
                os.close(ended)
                return

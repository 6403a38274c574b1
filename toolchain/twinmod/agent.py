# SPDX-License-Identifier: GPL-2.0-only
"""The program inside the VM: load, run, unload, and say each step on one line.

Process 1 of the guest. It does its work in a child, so that a call that never returns cannot
keep it from saying so. Standard library only, but for what a cell itself needs.
"""

import gc
import importlib
import json
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twinmod import process
from twinmod.errors import TwinmodError
from twinmod.specs import Command

PLAN_PATH = Path("/results/plan.json")
PORT_NAME = "twinmod"
HEARTBEAT_S = 1.0
MODULE_TIMEOUT_S = 20.0

#: Parts of pytest that the matrix does not need; together they are half of what a test costs
#: beside its own work, and an emulated processor makes each twenty times dearer.
PYTEST_SAVINGS = (
    "--capture=no",
    *(f"-pno:{name}" for name in (
        "debugging", "doctest", "faulthandler", "junitxml", "logging", "pastebin", "setuponly",
        "setupplan", "stepwise", "threadexception", "unraisableexception", "warnings",
    )),
)  # fmt: skip

#: linux/reboot.h
LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC


class Stream:
    """The way out: one JSON object a line, written whole before the next thing happens."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def emit(self, event: str, **values: object) -> None:
        """Write one event. The port accepts it only when the host has taken it over."""
        at_s = round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)
        line = json.dumps({"event": event, "at_s": at_s, **values}) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self.descriptor, data) :]


def find_port(name: str) -> Path:
    """Return the device of a virtio serial port.

    Source: drivers/char/virtio_console.c, Linux 7.3: the attribute ``name`` of a port.
    """
    for path in Path("/sys/class/virtio-ports").iterdir():
        if (path / "name").read_text().strip() == name:
            return Path("/dev") / path.name
    raise TwinmodError(f"the VM has no port {name!r}")


# -- kernel modules ---------------------------------------------------------------------------


def run_tool(*argv: str) -> str:
    """Run one of kmod's programs; return what it complained of, "" when it did its work."""
    command = Command(argv=argv, purpose=argv[0], timeout_s=MODULE_TIMEOUT_S)
    status, output = process.run_unchecked(command)
    return "" if status == 0 else output.strip() or f"{argv[0]}: status {status}"


def load(module: Mapping[str, str]) -> str:
    """Load a module; return why it did not load, or ""."""
    return run_tool("insmod", module["path"])


def unload(name: str) -> str:
    """Unload a module; return why it did not unload, or ""."""
    return run_tool("rmmod", name)


# -- a child that may never return ------------------------------------------------------------


class Child:
    """A forked child that does a cell's work and marks each step in a pipe."""

    def __init__(self, work: Callable[[int], int]) -> None:
        read_end, write_end = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read_end)
            os._exit(_run_guarded(work, write_end))
        os.close(write_end)
        self.marks = read_end
        self.pidfd = os.pidfd_open(self.pid)

    def wait(self, stream: Stream, limit_s: float) -> int | None:
        """Return the child's exit status, or None when it made no step within the limit."""
        poll = select.poll()
        poll.register(self.marks, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        last_mark = last_beat = now = time.monotonic()
        while now - last_mark < limit_s:
            ready = dict(poll.poll(HEARTBEAT_S * 1000))
            if self.pidfd in ready:
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            now = time.monotonic()
            if self.marks in ready and os.read(self.marks, 4096):
                last_mark = now
            elif self.marks in ready:
                poll.unregister(self.marks)
            if now - last_beat >= HEARTBEAT_S:
                stream.emit("alive")
                last_beat = now
        return None


def _run_guarded(work: Callable[[int], int], marks: int) -> int:
    try:
        return work(marks)
    except BaseException:
        traceback.print_exc()
        return 120


class Reporter:
    """A pytest plugin: says when a test begins and how it ended."""

    def __init__(self, stream: Stream, marks: int) -> None:
        self.stream = stream
        self.marks = marks
        self.rules: dict[str, list[str]] = {}
        self.spent: dict[str, float] = {}

    def pytest_itemcollected(self, item: Any) -> None:
        """Note the rules of a test."""
        self.rules[item.nodeid] = [
            rule for marker in item.iter_markers("rule") for rule in marker.args
        ]

    def pytest_collectreport(self) -> None:
        """Mark a step for each file: to read them all takes long on a busy machine."""
        os.write(self.marks, b".")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say that a test begins, before it can do any harm."""
        self.spent[nodeid] = 0.0
        self.stream.emit("test", id=nodeid, rules=self.rules[nodeid])
        os.write(self.marks, b".")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Say how a test ended: at the first phase that failed, or after its last."""
        self.spent[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            return
        if report.when == "setup" and report.passed:
            return
        if report.nodeid not in self.rules:
            return
        message = "" if report.passed else _find_message(report)
        rules = self.rules.pop(report.nodeid)
        self.stream.emit(
            "result", id=report.nodeid, rules=rules, outcome=report.outcome,
            duration_s=round(self.spent[report.nodeid], 4), message=message,
        )  # fmt: skip
        os.write(self.marks, b".")


def _find_message(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return f"{Path(crash.path).name}:{crash.lineno}: {crash.message}"
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return str(report.longrepr)[-500:]


# -- the work of a cell -----------------------------------------------------------------------


def run_pytest(plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream, marks: int) -> int:
    """Run the matrix in this process against one cell; return pytest's exit status."""
    pytest = importlib.import_module("pytest")
    log_path = Path("/results") / f"{cell['name'].replace('/', '-')}.pytest.log"
    with log_path.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        arguments = [
            plan["matrix"], "--rootdir", plan["matrix"], "-p", "no:cacheprovider", "--tb=short",
            "--strict-markers", "-q", "--no-header", "--color=no", *PYTEST_SAVINGS,
            "--module", cell["module"], "--module-path", plan["modules"][cell["module"]]["path"],
            "--tester", cell["tester"], "--marks", str(marks), *plan["pytest_args"],
        ]  # fmt: skip
        return int(pytest.main(arguments, plugins=[Reporter(stream, marks)]))


def run_count(plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream, marks: int) -> int:
    """Count up with one cell's tester on its module, and say what it took."""
    del marks
    tester = importlib.import_module(cell["package"])
    with tester.Device(f"/dev/{cell['module']}") as device:
        count = device.count_up(plan["threads"], plan["increments"])
    names = ("target", "actual", "real_s", "user_s", "system_s")
    stream.emit("count", values={name: getattr(count, name) for name in names})
    return 0 if count.actual == count.target else 1


WORKS = {"matrix": run_pytest, "count": run_count}


def run_cell(plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream) -> bool:
    """Run one cell; return whether this VM can be trusted with another one."""
    stream.emit("cell", cell=cell["name"])
    problem = load(plan["modules"][cell["module"]])
    if problem:
        stream.emit("cell_end", outcome="failed", problems=[f"did not load: {problem}"])
        return True
    work = WORKS[plan["mode"]]
    child = Child(lambda marks: work(plan, cell, stream, marks))
    status = child.wait(stream, plan["limit_s"])
    if status is None:
        write_stacks(child.pid)
        problem = f"no step within {plan['limit_s']:.0f} s"
        stream.emit("cell_end", outcome="timeout", problems=[problem])
        return False
    problems = [] if status in (0, 1) else [f"the cell's process ended with status {status}"]
    problem = unload(cell["module"])
    if problem:
        problems.append(f"did not unload: {problem}")
    outcome = "passed" if status == 0 and not problems else "failed"
    stream.emit("cell_end", outcome=outcome, problems=problems)
    return not problem


def write_stacks(pid: int) -> None:
    """Write what a stuck process is doing to the console: its stack, and every processor's."""
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*/stack")):
        try:
            text = thread.read_text()
        except OSError as error:
            text = str(error)
        Path("/dev/kmsg").write_text(f"<4>twinmod: {thread}: {' '.join(text.split())}\n")
    Path("/proc/sysrq-trigger").write_text("l")


def run_cells(plan: Mapping[str, Any], stream: Stream) -> None:
    """Run the cells of a plan, until one leaves the VM in doubt."""
    if plan["mode"] == "matrix":
        # Imported once: the cells fork from here, and pure Python is slow when emulated.
        gc.disable()
        importlib.import_module("pytest")
        gc.freeze()
    for cell in plan["cells"]:
        if not run_cell(plan, cell, stream):
            break
    stream.emit("end")


def run_shell(plan: Mapping[str, Any]) -> None:
    """Load every module and give the console to a person."""
    for name, module in plan["modules"].items():
        problem = load(module)
        print(problem or f"/dev/{name} is there")
    print("the testers:", ", ".join(plan["packages"]), "(import them in python3)")
    print("exit, or Ctrl-A x, ends the VM", flush=True)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        console = os.open("/dev/ttyS0", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(console, descriptor)
        os.execv("/bin/bash", ["bash", "--norc", "-i"])
    os.waitpid(pid, 0)


def power_off() -> None:
    """End the VM at once; its root is read-only and its results are with the host."""
    os.sync()
    importlib.import_module("ctypes").CDLL(None).reboot(LINUX_REBOOT_CMD_POWER_OFF)


def main() -> None:
    """Do what the plan says, then end the VM."""
    plan = json.loads(PLAN_PATH.read_text())
    if plan["mode"] == "shell":
        run_shell(plan)
    else:
        stream = Stream(os.open(find_port(PORT_NAME), os.O_WRONLY))
        stream.emit("boot", release=os.uname().release, python=sys.version.split()[0])
        run_cells(plan, stream)
    power_off()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-only
"""A program that takes bwrap's place: it plays QEMU by a script, and the chroot's other programs.

A test puts its folder first in PATH. It knows nothing of twinmod: the lines of its VMs come from
files beside it, which fakevm.py writes. It starts in some milliseconds: no module but these.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

# As typing.TYPE_CHECKING, without typing.
MYPY = False
if MYPY:
    from collections.abc import Iterator
    from socket import socket
    from typing import Any, NoReturn

HOME = os.path.dirname(os.path.abspath(__file__))

#: Where a VM's folder and its results are, inside the sandbox.
RESULTS = "/twinmod/run/results"
RECORDING = "/twinmod/recording"

#: What a VM without a script of its own does.
DEFAULT: list[list[Any]] = [["boot"], ["cells"], ["end"]]

#: What a VM does that waits for its work.
WAIT: list[list[Any]] = [["boot"], ["waiting"], ["save"]]

MOUNTS: list[tuple[str, str]] = []


def find_host_path(inside: str) -> str:
    """Return the path of the host that lies at a path of the sandbox."""
    for target, source in reversed(MOUNTS):
        if inside == target or inside.startswith(target.rstrip("/") + "/"):
            return source + inside[len(target.rstrip("/")) :]
    raise FileNotFoundError(inside)


def read_json(name: str) -> Any:
    """Return what a file beside this program holds."""
    with open(os.path.join(HOME, name), encoding="utf-8") as file:
        return json.load(file)


def note(**values: Any) -> None:
    """Append a line to the log of what was started."""
    line = json.dumps({"pid": os.getpid(), **values}) + "\n"
    descriptor = os.open(
        os.path.join(HOME, "started.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
    )
    os.write(descriptor, line.encode())
    os.close(descriptor)


def write_file(path: str, content: str) -> None:
    """Write a file, and the folders above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


def rest(host: int) -> NoReturn:
    """Do nothing until somebody ends this process, or its host is gone: as bwrap, it dies then."""
    while True:
        time.sleep(0.2)
        try:
            os.kill(host, 0)
        except ProcessLookupError:
            os._exit(1)


def end(status: int, words: str = "") -> NoReturn:
    """End with a status, after some words on standard output."""
    write_all(1, words.encode())
    os._exit(status)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes."""
    while data:
        data = data[os.write(descriptor, data) :]


def fill(template: str, values: dict[str, Any]) -> str:
    """Return a line with each ``"@NAME@"`` of it replaced by a value."""
    for name, value in values.items():
        template = template.replace(f'"@{name}@"', json.dumps(value))
    return template


# -- a VM -------------------------------------------------------------------------------------


class Machine:
    """A VM: plays the acts of its script in their order."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        # Later it may be gone, and another process be the parent.
        self.host = os.getppid()
        self.results = find_host_path(RESULTS)
        self.lines = read_json("lines.json")
        self.pending = b""
        # The monitor's connection, once there is one.
        self.monitor: socket | None = None
        self.port = self.open_port()
        held = find_value(argv, "-fw_cfg") if "-fw_cfg" in argv else ""
        self.held_path = find_host_path(held.partition("file=")[2]) if held else ""
        try:
            with open(os.path.join(self.results, "plan.json"), encoding="utf-8") as file:
                self.plan = json.load(file)
        except FileNotFoundError:
            self.plan = {"mode": "probe", "cells": [], "modules": {}}
        if any("rr=record" in word for word in argv):
            write_file(find_host_path(f"{RECORDING}/execution"), "the machine's events")

    def run(self, script: list[list[Any]]) -> None:
        """Play a script; what is said between two other acts arrives at once."""
        for name, *arguments in script:
            getattr(self, f"act_{name}")(*arguments)
        self.flush()

    def flush(self) -> None:
        """Let the host have what was said."""
        data, self.pending = self.pending, b""
        write_all(1, data)

    def act_raw(self, text: str) -> None:
        """Say some text as it is."""
        self.pending += text.encode("utf-8", "surrogateescape")

    def act_boot(self) -> None:
        """Say that the agent runs."""
        self.act_raw(self.lines["boot"])

    def act_end(self) -> None:
        """Say that all is done."""
        self.act_raw(self.lines["end"])

    def act_cells(self) -> None:
        """Play every cell of the plan."""
        for cell in self.plan["cells"]:
            self.act_cell(cell["name"])

    def act_cell(self, name: str) -> None:
        """Play one cell: as it was told for its name, else as one of its job that passes."""
        job = self.find_cell(name)["job"]["kind"]
        told = self.lines["cells"]
        script = told.get(f"{job} {name}") or told.get(name) or self.lines["jobs"][job]
        for act, *arguments in script:
            own = [a.replace("@CELL@", name) if isinstance(a, str) else a for a in arguments]
            getattr(self, f"act_{act}")(*own)

    def act_waiting(self) -> None:
        """Say that it waits for what it is to do."""
        self.act_raw(self.lines["collected" if self.plan["matrix"] else "waiting"])

    def act_save(self, refused: str = "") -> None:
        """Be saved, unless QEMU refuses that with some words."""
        self.flush()
        for command in self.iterate_commands({"migrate": refused}):
            if command["execute"] == "migrate":
                write_file(find_host_path(command["arguments"]["uri"][5:]), "a state")
            elif command["execute"] == "quit":
                return

    def act_incoming(self, refused: str = "", unpluggable: str = "", ends: str = "") -> None:
        """Go on from a state, and take devices; then take what the host delivers.

        Args:
            refused: With which words QEMU refuses the state.
            unpluggable: With which words it refuses a device.
            ends: With which words it ends of the state.
        """
        plugged = []
        for command in self.iterate_commands(
            {"migrate-incoming": refused, "device_add": unpluggable}, asked=True
        ):
            if command["execute"] == "migrate-incoming":
                state = find_host_path(command["arguments"]["uri"][5:])
                assert os.path.getsize(state), "the state is whole"
                if ends:
                    self.act_stderr(ends)
                    self.act_exit(1)
                self.tell({"event": "RESUME"})
                # Nothing comes by the port to a VM whose delivery QEMU holds.
                if self.held_path:
                    break
            elif command["execute"] == "device_add":
                plugged.append(command["arguments"])
            elif command["execute"] == "quit":
                os._exit(0)
        delivery = json.loads(self.read_delivery())
        ports = delivery["ports"]
        note(
            delivered=sorted(delivery["files"]),
            entropy=delivery["entropy"],
            time_s=delivery["time_s"],
            to=self.results,
            plugged=plugged,
            ports=ports,
        )
        self.plan = delivery["plan"]

    def read_delivery(self) -> bytes:
        """Return what the host delivers: QEMU holds it, or it comes by the port."""
        if not self.held_path:
            return bytes(self.port.readline())
        with open(self.held_path, "rb") as file:
            return file.read()

    def open_port(self) -> Any:
        """Return where the host says something: a socket, of a VM whose console is a person's."""
        interactive = any(word.startswith("socket,id=events") for word in self.argv)
        return self.connect("events.sock").makefile("rb") if interactive else sys.stdin.buffer

    def act_unplug(self, *events: str) -> None:
        """Be told to take devices out until the host says something; say events of each."""
        self.flush()
        for command in self.iterate_commands({}, asked=True):
            if command["execute"] == "device_del":
                for event in events:
                    self.tell({"event": event, "data": {"device": command["arguments"]["id"]}})

    def act_plug(self, number: int, plugged: bool, *events: str) -> None:
        """Let a test ask for a device; say events of it, and note what the host replies."""
        self.open_monitor()
        asked = {"event": "plug", "number": number, "plugged": plugged, "at_s": 1.0}
        self.act_raw(json.dumps(asked) + "\n")
        self.act_unplug(*events)
        note(replied=json.loads(self.port.readline()))

    def iterate_commands(
        self, refused: dict[str, str], *, asked: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yield what QEMU is told to do, after it was answered; see docs/interop/qmp-spec.rst.

        Args:
            refused: The words that it refuses a command with.
            asked: Whether it is only told until the host says something to the VM.
        """
        import select  # noqa: PLC0415 - most VMs are told nothing

        monitor = self.open_monitor()
        both = [monitor.fileno(), self.port.fileno()]
        while not asked or monitor.fileno() in select.select(both, [], [])[0]:
            # The host says a line, and then nothing until it is answered.
            line = monitor.recv(1 << 16)
            if not line:
                return
            command = json.loads(line)
            words = refused.get(command["execute"])
            answer = {"error": {"desc": words}} if words else {"return": {"status": "completed"}}
            self.tell(answer)
            if not words:
                yield command

    def open_monitor(self) -> socket:
        """Return the connection to the host's monitor, where QEMU speaks first."""
        if self.monitor is None:
            self.monitor = self.connect("monitor.sock")
            self.tell({"QMP": {}})
        return self.monitor

    def connect(self, name: str) -> socket:
        """Return a connection to a socket among the results."""
        import socket  # noqa: PLC0415 - most VMs are told nothing

        # The path may be too long for a socket's address.
        os.chdir(self.results)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(name)
        return connection

    def tell(self, message: dict[str, Any]) -> None:
        """Let QEMU say something to the host, in its monitor."""
        assert self.monitor
        self.monitor.sendall(json.dumps(message).encode() + b"\n")

    def act_console(self, text: str) -> None:
        """Let the kernel say something."""
        with open(os.path.join(self.results, "console.log"), "a", encoding="utf-8") as file:
            file.write(text)

    def act_file(self, name: str, text: str) -> None:
        """Leave a file among the results."""
        write_file(os.path.join(self.results, name), text)

    def act_stderr(self, text: str) -> None:
        """Let QEMU itself say something."""
        write_all(2, text.encode())

    def act_serve(self, options: dict[str, Any]) -> None:
        """Answer requests until there are no more; see ``answer`` for the options."""
        self.act_raw(self.lines["ready"])
        self.flush()
        rest = b""
        while True:
            line, newline, rest = rest.partition(b"\n")
            if not newline:
                more = os.read(0, 65536)
                if not more:
                    os._exit(0)
                rest = line + more
                continue
            request = json.loads(line)
            if request is None:
                return
            self.answer(request["steps"], options)

    def answer(self, steps: list[Any], options: dict[str, Any]) -> None:
        """Answer a request: a device that adds up what is put into it, and refuses to take it out.

        Args:
            steps: What is asked.
            options: ``from``: a value that the last module gets wrong, or that ends the VM, as
                ``how`` has it: "wrong", "die", "oops", "silent".
        """
        values = [step[1].get("value", 0) for step in steps]
        bad = any(value >= options["from"] for value in values) if "from" in options else False
        how = options.get("how", "wrong") if bad else ""
        if how == "oops":
            self.act_console(self.lines["oops"])
        if how in ("oops", "die"):
            self.act_kill()
        if how == "silent":
            self.act_silence()
        given = [
            [value, 0 if name == "put" else 1]
            for value, (name, _) in zip(values, steps, strict=True)
        ]
        answers: dict[str, Any] = {name: [*given, [sum(values)]] for name in self.plan["modules"]}
        if how == "wrong":
            answers[list(answers)[-1]] = [*given, [sum(values) + 1]]
        self.act_raw(fill(self.lines["answer"], {"ANSWERS": answers}))
        self.flush()

    def find_cell(self, name: str) -> Any:
        """Return a cell of the plan."""
        (cell,) = (cell for cell in self.plan["cells"] if cell["name"] == name)
        return cell

    def act_measure(self, cell: str, options: dict[str, Any]) -> None:
        """Measure every kind of calls, and leave what a profiler counted.

        Args:
            cell: Of a cell with a module, or that of the yardsticks.
            options: ``broken``: what the profiler left is not whole.
        """
        planned = self.find_cell(cell)
        measurement = planned["job"]["measurement"]
        written, number = "", 1
        for load in range(1, measurement["loads"] + 1):
            self.act_raw(self.lines["section"])
            written, number = written + "symbols\n", 1
            for timing in measurement["timings"]:
                if bool(timing["path"]) == bool(planned["module"]):
                    continue
                values = {"TIMING": timing, "CELL": cell, "LOAD": load, "FIRST": number}
                self.act_raw(fill(self.lines["figure"], values))
                for calls in (1, 2, 1, 2):
                    written += f"magic {number} {100 * calls} 0\n"
                    number += 2
        with open(os.path.join(self.results, "counts"), "a", encoding="utf-8") as file:
            file.write("lost 12\n" if options.get("broken") else written)

    def act_turns(self, cell: str) -> None:
        """Time every kind of calls of every module, with each tester."""
        timings = self.find_cell(cell)["job"]["measurement"]["timings"]
        for tester in self.plan["testers"]:
            for timing in timings:
                for module in [""] if timing["path"] else self.plan["modules"]:
                    values = {"TIMING": timing, "MODULE": module, "TESTER": tester}
                    self.act_raw(fill(self.lines["turns"], values))

    def act_silence(self) -> None:
        """Say nothing more, for good."""
        self.flush()
        rest(self.host)

    def act_chatter(self, text: str) -> None:
        """Say a line again and again, until somebody ends it."""
        while True:
            self.act_raw(text)
            self.flush()
            time.sleep(0.01)

    def act_close(self) -> None:
        """Have nothing more to say, and be there all the same."""
        self.flush()
        os.close(1)
        rest(self.host)

    def act_exit(self, status: int) -> None:
        """Be gone."""
        self.flush()
        os._exit(status)

    def act_kill(self) -> None:
        """Be killed."""
        self.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def act_kill_host(self) -> None:
        """Let the host take what was said; then kill it, as by kill -9."""
        self.flush()
        os.kill(self.host, signal.SIGKILL)

    def act_child(self) -> None:
        """Start a process that outlives this one, unless the whole group is ended."""
        host = self.host
        pid = os.fork()
        if pid == 0:
            for descriptor in (0, 1, 2):
                os.close(descriptor)
            rest(host)
        note(child=pid)

    def act_stalled(self, name: str) -> None:
        """Wait until the build of a module runs that comes to no end."""
        line = f'"stalled": "{name}"'
        while True:
            with open(os.path.join(HOME, "started.jsonl"), encoding="utf-8") as file:
                if line in file.read():
                    return
            time.sleep(0.001)

    def act_interrupt(self) -> None:
        """Let the host take what was said; then press Ctrl-C there."""
        import fcntl  # noqa: PLC0415 - no other act needs it
        import termios  # noqa: PLC0415

        self.flush()
        left = bytearray(b"\1\0\0\0")
        while any(left):
            time.sleep(0.001)
            fcntl.ioctl(1, termios.FIONREAD, left)
        os.kill(self.host, signal.SIGINT)


def find_script(vm_dir: str, mode: str) -> list[list[Any]]:
    """Return the script of a VM, by how the path of its folder ends, or by what it is to do."""
    scripts = read_json("scripts.json")
    for name in sorted(scripts, key=len, reverse=True):
        if vm_dir.endswith(f"/{name}"):
            return list(scripts[name])
    usual = {"probe": [], "shell": [], "wait": WAIT}
    return list(scripts.get(mode, usual.get(mode, DEFAULT)))


def play_qemu(argv: list[str]) -> None:
    """Be a VM."""
    if "--version" in argv:
        end(0, "QEMU emulator version 10.0.0\n")
    vm_dir = os.path.dirname(find_host_path(RESULTS))
    note(vm=vm_dir, argv=argv)
    machine = Machine(argv)
    script = find_script(vm_dir, machine.plan["mode"])
    # One that boots in the place of a clone has the clone's script.
    own = script.pop(0)[1:] if script and script[0][0] == "incoming" else []
    if "-incoming" in argv:
        machine.act_incoming(*own)
    machine.run(script)


# -- the chroot's other programs --------------------------------------------------------------


def find_value(argv: list[str], option: str) -> str:
    """Return what follows an option."""
    return argv[argv.index(option) + 1]


def refuse(name: str) -> None:
    """End as a compiler does that refuses a source, where a test wants that."""
    refusals = read_json("lines.json")["refusals"]
    if name in refusals:
        end(2, refusals[name])


def stall(name: str) -> None:
    """Build for good where a test wants that, and press Ctrl-C at the host where it wants that."""
    stalls = read_json("lines.json")["stalls"]
    if name in stalls:
        note(stalled=name)
        if stalls[name]:
            os.kill(os.getppid(), signal.SIGINT)
        rest(os.getppid())


def play_make(argv: list[str]) -> None:
    """Build a module: the file that was made for its name."""
    (folder,) = (word[2:] for word in argv if word.startswith("M="))
    inside = folder if folder.startswith("/") else f"/twinmod/linux/{folder}"
    name = os.path.basename(inside)
    refuse(name)
    stall(name)
    target = os.path.join(find_host_path(inside), f"{name}.ko")
    with open(os.path.join(HOME, "ko", f"{name}.ko"), "rb") as built, open(target, "wb") as file:
        file.write(built.read())


def play_compiler(argv: list[str]) -> None:
    """Compile a program."""
    target = find_value(argv, "-o")
    refuse(os.path.basename(target))
    write_file(find_host_path(target), "a program")


def play_python(argv: list[str]) -> None:
    """Install packages, or compile and collect the matrix."""
    if argv[2] != "pip":
        return
    target = find_host_path(find_value(argv, "--target"))
    if "-r" in argv:
        write_file(f"{target}/pytest/__init__.py", "")
    else:
        package = read_json("lines.json")["packages"][os.path.basename(argv[-1])]
        write_file(f"{target}/{package}/extension.so", "")


def play_strip(argv: list[str]) -> None:
    """Leave out what a debugger wants: here all but three bytes."""
    write_file(find_host_path(find_value(argv, "-o")), "ELF")


def play_filter(argv: list[str]) -> None:
    """Decode names: they are as they are."""
    end(0, "".join(f"{name}\n" for name in argv[1:]))


def play_addresses(argv: list[str]) -> None:
    """Find a line for each address."""
    module = os.path.basename(find_host_path(find_value(argv, "-e"))).partition(".")[0]
    addresses = [word for word in argv if word.startswith("0x")]
    end(0, "".join(f"{address}\n{module}_read\n{module}.c:7\n" for address in addresses))


def play_gdb(argv: list[str]) -> None:
    """Debug: end with the status that a test wants."""
    note(gdb=argv)
    end(read_json("lines.json").get("gdb", 0))


PROGRAMS = {
    "qemu-system-x86_64": play_qemu,
    "make": play_make,
    "gcc": play_compiler,
    "rustc": play_compiler,
    "python3": play_python,
    "cargo": lambda argv: None,
    # Checks that have nothing to say.
    "perl": lambda argv: None,
    "rustfmt": lambda argv: None,
    "strip": play_strip,
    "c++filt": play_filter,
    "addr2line": play_addresses,
    "gdb": play_gdb,
}


def main(argv: list[str]) -> None:
    """Read bwrap's own arguments, then play the program that it would start."""
    at = argv.index("--")
    for place, word in enumerate(argv[:at]):
        if word in ("--bind", "--ro-bind"):
            MOUNTS.append((argv[place + 2], argv[place + 1]))
    program = argv[at + 1 :]
    PROGRAMS[program[0]](program)


if __name__ == "__main__":
    main(sys.argv[1:])

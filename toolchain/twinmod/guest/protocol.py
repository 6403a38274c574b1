# SPDX-License-Identifier: GPL-2.0-only
"""What a host and its VM say to each other, one JSON value a line; both sides use it.

The fields of a class are the keys of its JSON object, all of them and no others.
"""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class ProtocolError(ValueError):
    """The other side said something that this protocol does not have."""


class Outcome(StrEnum):
    """How a test, a rule or a cell ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    # Of a test or a rule: it failed, as the configuration declares with a reason.
    DIFFERED = "differed"
    # The kernel reported a fault.
    CRASHED = "crashed"
    # The VM, or the process of the cell, went on for too long without a step.
    TIMEOUT = "timeout"
    # The VM was gone before it said more.
    LOST = "lost"
    # Of a rule: no test answered for it.
    MISSING = "missing"
    # It began, and nothing has said how it ended.
    RUNNING = ""


class Job(StrEnum):
    """What a VM is to do, or one cell in it; each cell's job has a class of its own."""

    MATRIX = "matrix"
    COUNT = "count"
    MEASURE = "measure"
    TURNS = "turns"
    DIFFERENTIAL = "differential"
    SHELL = "shell"
    # Collect the matrix if there is one, and wait for a delivery with the next plan.
    WAIT = "wait"


#: A file in memory of the VM, which calls are measured on too.
TMPFS_FILE = "/tmp/twinmod.yardstick"


class Operation(StrEnum):
    """What is called."""

    READ = "read"
    WRITE = "write"
    PREAD = "pread"
    PWRITE = "pwrite"
    # The ADD ioctl.
    ADD = "add"
    # It closes too.
    OPEN = "open"
    LOAD = "load"
    UNLOAD = "unload"
    # A counter with several threads.
    COUNT = "count"


class BufferKind(StrEnum):
    """Which memory calls read into and write from."""

    # One buffer, all of it there; in a loop of reads and writes it is allocated before the loop.
    REUSED = "reused"
    # Each call's was never touched; in a loop it is allocated in each pass.
    FRESH = "fresh"


class Caller(StrEnum):
    """Whose loop makes calls."""

    TESTER = "tester"
    # One in C with nothing else in it.
    BARE = "bare"


class Regions(StrEnum):
    """Which bytes of a device several threads move."""

    ONE = "one"
    DISJOINT = "disjoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Calls of one kind, whose instructions are counted."""

    operation: Operation
    size_bytes: int = 0
    # What is opened; "" is the module's own device.
    path: str = ""
    buffers: BufferKind = BufferKind.REUSED
    loop: Caller = Caller.TESTER
    # How many make them at once; only a clock can tell what that costs.
    threads: int = 1
    regions: Regions = Regions.ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopShape:
    """How large a loop of reads and writes is."""

    # What it reads and writes in a pass, and how often it goes round.
    size_bytes: int
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is counted in each cell."""

    timings: tuple[Timing, ...]
    # How often the module is loaded in one VM; all is counted anew after each load.
    loads: int
    # Each of two segments of calls. The first ones are not believed: a module that was just loaded
    # has things to do for the first time.
    rounds: int
    # Of a clock: how often each module's turn comes.
    turns: int = 0
    # A loop of reads and writes that is looked at too, with buffers that are made in it.
    loop: LoopShape | None = None
    # Of the device's memory; 0 leaves the module its own.
    device_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What threads counted up to, and what it took."""

    target: int
    actual: int
    real_s: float
    user_s: float
    system_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """What each call of a loop that reads and writes a buffer took."""

    size_bytes: int
    buffers: BufferKind
    # In nanoseconds of the VM's clock, and in minor page faults, one of each per pass.
    read_ns: tuple[int, ...]
    write_ns: tuple[int, ...]
    read_faults: tuple[int, ...]
    write_faults: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where, in what a VM's profiler wrote, the calls of one kind are."""

    timing: Timing
    # The name of the cell.
    cell: str
    # From 1 on, in one VM.
    load: int
    # The number, in the section, of the magic instruction that ended the first segment; every
    # second one ends one.
    first: int
    # How many calls the two segments of a round make.
    lengths: tuple[int, int]
    # Minor page faults of every segment.
    faults: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """What calls of one kind took by a clock, turn by turn: all modules had one of the same number.

    A turn of a yardstick is its own.
    """

    timing: Timing
    # "" for a yardstick.
    module: str
    tester: str
    # How many calls each thread made in a turn.
    calls: int
    # Of a call, in each turn, with all threads at work.
    latency_ns: tuple[float, ...]
    minor_faults: float


# -- the plan: what a VM is to do -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixJob:
    """Run tests on a module."""

    KIND: ClassVar[Job] = Job.MATRIX
    # What pytest is told.
    pytest_args: tuple[str, ...]
    # Only the tests of these rules; () leaves all that the run has.
    rules: tuple[str, ...]
    # Only these files of the matrix; () is all of it.
    files: tuple[str, ...]
    # Only these tests, by pytest's names; () is all of them.
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentialJob:
    """Carry out the host's requests on all modules."""

    KIND: ClassVar[Job] = Job.DIFFERENTIAL
    # The matrix's package with the executor.
    package: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CountJob:
    """Count up on a module."""

    KIND: ClassVar[Job] = Job.COUNT
    threads: int
    # Of each thread.
    increments: int
    # How a thread increments: lock, add or racy, as the testers have it.
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureJob:
    """Make calls whose instructions are counted."""

    KIND: ClassVar[Job] = Job.MEASURE
    measurement: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsJob:
    """Make calls of all modules in turns, by a clock."""

    KIND: ClassVar[Job] = Job.TURNS
    measurement: Measurement


CellJob = MatrixJob | DifferentialJob | CountJob | MeasureJob | TurnsJob


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell, as its VM knows it."""

    name: str
    # "" where it is of no one module, or of none; so are its tester and the module's file.
    module: str
    tester: str
    path: str
    job: CellJob


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModule:
    """A module that a VM loads."""

    # Its file.
    path: str
    # What it is given at each load, as the kernel takes it.
    parameters: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDevice:
    """A device that a VM has beside those of every VM."""

    # QEMU's name of it, as in edu.
    model: str
    # The address of the root port that it is behind, as sysfs has it; "" of one that is not on PCI.
    port: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a VM is to do. Paths are those of the VM."""

    mode: Job
    # The serial line that events go to; "" is the virtio port.
    port: str
    cells: tuple[PlannedCell, ...]
    # By name, all that are under test.
    modules: Mapping[str, PlannedModule]
    # By name, the package that is imported.
    testers: Mapping[str, str]
    # The folder of the matrix; "" of a VM that waits and has none.
    matrix: str
    # What the modules say as theirs.
    version: str
    # Seconds that a cell may go without a step.
    limit_s: float
    # The library and the program of a VM that measures.
    magic: str
    loop: str
    # Whether the clones of a VM that waits measure: QEMU holds what is delivered to them.
    counted: bool = False
    # By name, in load order, what is loaded before them.
    needed: Mapping[str, PlannedModule] = field(default_factory=dict)
    # What the VM has by its configuration, and whether the host takes it out on demand.
    devices: tuple[PlannedDevice, ...] = ()
    hotplug: bool = False


def render_plan(plan: Plan) -> str:
    """Return a plan as the file that a VM reads."""
    return json.dumps(plan, default=to_fields, indent=2) + "\n"


def parse_plan(text: str | bytes) -> Plan:
    """Return the plan that a file holds.

    Raises:
        ProtocolError: It holds none, or one of another protocol.
    """
    try:
        return from_json(Plan, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the plan is not one of ours: {error}") from error


# -- events: what a VM says -------------------------------------------------------------------


# Not frozen: that is half of what it takes to make a class, and a VM makes all of them.
@dataclass(slots=True, kw_only=True)
class _Event:
    """What every event has. KIND is the value of its key ``event``."""

    # Seconds of the VM's clock when it was said; the stream knows them.
    at_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Booted(_Event):
    """The agent runs."""

    KIND: ClassVar[str] = "boot"
    # uname -r, and Python's version.
    release: str
    python: str


@dataclass(slots=True, kw_only=True)
class Waiting(_Event):
    """The VM waits for a delivery: now it can be saved."""

    KIND: ClassVar[str] = "waiting"
    # By name, the rules of every test that it has collected.
    tests: Mapping[str, tuple[str, ...]]


@dataclass(slots=True, kw_only=True)
class CellBegan(_Event):
    """A cell begins."""

    KIND: ClassVar[str] = "cell"
    # Its name.
    cell: str


@dataclass(slots=True, kw_only=True)
class TestBegan(_Event):
    """A test begins."""

    # pytest would otherwise take the class for tests.
    __test__: ClassVar[bool] = False
    KIND: ClassVar[str] = "test"
    id: str
    rules: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class TestEnded(_Event):
    """A test ended."""

    __test__: ClassVar[bool] = False
    KIND: ClassVar[str] = "result"
    id: str
    rules: tuple[str, ...]
    outcome: Outcome
    duration_s: float
    # Why it did not pass, "" when it did.
    message: str


@dataclass(slots=True, kw_only=True)
class CountTaken(_Event):
    """The threads of a cell have counted."""

    KIND: ClassVar[str] = "count"
    values: Count


@dataclass(slots=True, kw_only=True)
class LoopTaken(_Event):
    """A loop of reads and writes ended."""

    KIND: ClassVar[str] = "loop"
    values: Passes


@dataclass(slots=True, kw_only=True)
class SectionBegan(_Event):
    """The profiler reads the addresses of the kernel's symbols: what it counts follows."""

    KIND: ClassVar[str] = "symbols"


@dataclass(slots=True, kw_only=True)
class FigureTaken(_Event):
    """Calls of one kind were counted."""

    KIND: ClassVar[str] = "figure"
    values: Segments


@dataclass(slots=True, kw_only=True)
class TurnsTaken(_Event):
    """Calls of one kind were timed."""

    KIND: ClassVar[str] = "turns"
    values: Turns


@dataclass(slots=True, kw_only=True)
class Ready(_Event):
    """The differential waits for requests."""

    KIND: ClassVar[str] = "ready"


@dataclass(slots=True, kw_only=True)
class Answered(_Event):
    """A request was carried out."""

    KIND: ClassVar[str] = "answer"
    # By module, what each step came to, as the matrix's executor has it.
    answers: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class WrittenByProgram(_Event):
    """A program wrote a line to /dev/kmsg that looks like the first one of a splat."""

    KIND: ClassVar[str] = "by_program"
    # As the console has it.
    line: str


@dataclass(slots=True, kw_only=True)
class FileWritten(_Event):
    """A cell left a file, in a VM that shares no folder with its host."""

    KIND: ClassVar[str] = "file"
    # Of the file, without a folder.
    name: str
    # In base64.
    content: str


@dataclass(slots=True, kw_only=True)
class PlugAsked(_Event):
    """A test wants a device taken out, or plugged in again; it waits for the host's reply."""

    KIND: ClassVar[str] = "plug"
    # Of the device in the plan, from 0 on.
    number: int
    # Whether it is to be there.
    plugged: bool


@dataclass(slots=True, kw_only=True)
class Alive(_Event):
    """The agent still waits for the process of a cell."""

    KIND: ClassVar[str] = "alive"


@dataclass(slots=True, kw_only=True)
class CellEnded(_Event):
    """A cell ended."""

    KIND: ClassVar[str] = "cell_end"
    outcome: Outcome
    problems: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Ended(_Event):
    """The agent has done what it was told; the VM powers itself off."""

    KIND: ClassVar[str] = "end"


Event = (
    Booted
    | Waiting
    | CellBegan
    | TestBegan
    | TestEnded
    | CountTaken
    | LoopTaken
    | SectionBegan
    | FigureTaken
    | TurnsTaken
    | Ready
    | Answered
    | WrittenByProgram
    | FileWritten
    | PlugAsked
    | Alive
    | CellEnded
    | Ended
)

EVENTS: Mapping[str, type[Event]] = {kind.KIND: kind for kind in typing.get_args(Event)}


def render_event(event: Event, at_s: float) -> str:
    """Return an event as the line that says it.

    Args:
        event: What is said.
        at_s: Seconds of the VM's clock.
    """
    values = {"event": event.KIND, **to_fields(event), "at_s": round(at_s, 3)}
    return json.dumps(values, default=to_fields) + "\n"


def parse_event(line: str) -> Event | None:
    """Return the event that a line says; None: the line says none, or its end is missing.

    Raises:
        ProtocolError: It says one that this protocol does not have.
    """
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("event"), str):
        return None
    kind = EVENTS.get(values.pop("event"))
    if kind is None:
        raise ProtocolError(f"unknown event: {line.strip()}")
    return from_json(kind, values)


# -- the delivery: what a VM that waits is given ----------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a VM that waits is to do, and what makes it differ from its siblings.

    VMs that were cloned from one snapshot have one state of the random number generator, and the
    snapshot's time.
    """

    # Seconds since 1970.
    time_s: float
    # For the kernel's random number generator, in hexadecimal digits.
    entropy: str
    # By path in the VM, the content of files in base64, and what links lead to.
    files: Mapping[str, str]
    links: Mapping[str, str]
    # What a delivered source has as its time, in seconds since 1970: what is compiled names it.
    source_time: int
    # The addresses of the root ports that a device was plugged into, as sysfs has them.
    ports: tuple[str, ...]
    plan: Plan


def render_delivery(delivery: Delivery) -> str:
    """Return a delivery as the line that brings it."""
    return json.dumps(delivery, default=to_fields)


def parse_delivery(line: str | bytes) -> Delivery:
    """Return what a line brings.

    Raises:
        ProtocolError: It brings nothing.
    """
    try:
        return from_json(Delivery, json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the delivery is not one of ours: {error}") from error


# -- requests: what a VM that is ready is asked -----------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Steps that every module is to carry out."""

    # Of the devices.
    size: int
    tester: str
    # (name, arguments), as the matrix's executor has them.
    steps: tuple[Any, ...]


def render_request(request: Request | None) -> str:
    """Return a request as the line that makes it; None: there are no more."""
    return json.dumps(request, default=to_fields)


def parse_request(line: str | bytes) -> Request | None:
    """Return the request that a line makes; None: there are no more.

    Raises:
        ProtocolError: It makes none.
    """
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"a request is not JSON: {error}") from error
    return None if values is None else from_json(Request, values)


# -- replies: what a test is told that asked for something ------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugged:
    """What came of PlugAsked."""

    # Why it was not done, "" when it was.
    problem: str


def render_reply(reply: Plugged) -> str:
    """Return a reply as the line that brings it."""
    return json.dumps(reply, default=to_fields)


def parse_reply(line: str | bytes) -> Plugged:
    """Return the reply that a line brings.

    Raises:
        ProtocolError: It brings none.
    """
    try:
        return from_json(Plugged, json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the reply is not one of ours: {error}") from error


# -- JSON -------------------------------------------------------------------------------------


def to_fields(value: Any) -> Mapping[str, object]:
    """Return an object of a class of this module as a dictionary, for json's ``default``.

    A job begins with its kind, by which it is known again.
    """
    kind = {"kind": value.KIND} if isinstance(value, CellJob) else {}
    return {**kind, **{one.name: getattr(value, one.name) for one in fields(value)}}


def from_json(kind: type[T], values: object) -> T:
    """Return the object of a class of this module that JSON's own types stand for.

    Raises:
        ProtocolError: A key is unknown or missing, or a value has another type.
    """
    if not isinstance(values, dict):
        raise ProtocolError(f"{kind.__name__} is not an object: {values!r}")
    hints = _find_hints(typing.cast("Any", kind))
    unknown, missing = sorted(values.keys() - hints), sorted(hints.keys() - values)
    if unknown or missing:
        told = [f"unknown {key!r}" for key in unknown] + [f"no {key!r}" for key in missing]
        raise ProtocolError(f"{kind.__name__} has {', '.join(told)}")
    return kind(
        **{
            name: _parse_value(hint, values[name], f"{kind.__name__}.{name}")
            for name, hint in hints.items()
        }
    )


@cache
def _find_hints(kind: Any) -> Mapping[str, object]:
    """Return the fields of a class of this module, each with its type."""
    hints = typing.get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


def _parse_job(value: Any, name: str) -> CellJob:
    """Return the job of a cell; see _parse_value."""
    values = dict(value) if isinstance(value, dict) else {}
    named = values.pop("kind", "")
    for kind in typing.get_args(CellJob):
        if named == kind.KIND:
            job: CellJob = from_json(kind, values)
            return job
    raise ProtocolError(f"{name} cannot be {value!r}")


def _parse_value(hint: Any, value: Any, name: str) -> Any:
    """Return the value of a field.

    Args:
        hint: Its type.
        value: JSON's own types.
        name: What an error calls it.
    """
    if hint is Any:
        return value
    if hint == CellJob:
        return _parse_job(value, name)
    if is_dataclass(hint):
        return from_json(typing.cast("type[Any]", hint), value)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return value if value is None else _parse_value(parts[0], value, name)
    found: Any = value
    if origin is tuple:
        fits = isinstance(value, list) and (parts[-1] is Ellipsis or len(parts) == len(value))
        if fits:
            kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
            found = tuple(map(_parse_value, kinds, value, [name] * len(value)))
    elif origin is Mapping:
        fits = isinstance(value, dict)
        if fits:
            found = {key: _parse_value(parts[1], part, name) for key, part in value.items()}
    elif issubclass(hint, StrEnum):
        fits = value in list(hint)
        if fits:
            found = hint(value)
    else:
        fits = type(value) is hint or (hint is float and type(value) is int)
    if not fits:
        raise ProtocolError(f"{name} cannot be {value!r}")
    return found

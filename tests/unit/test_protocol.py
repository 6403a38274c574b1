# SPDX-License-Identifier: GPL-2.0-only
"""What a host and its VM say to each other: all of it comes out as it went in, or is refused."""

import json
import re
from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from twinmod.guest import protocol
from twinmod.guest.protocol import (
    BufferKind,
    CellJob,
    Event,
    Job,
    Operation,
    Outcome,
    ProtocolError,
    Timing,
)

TIMING = Timing(operation=Operation.PREAD, size_bytes=8)
LOOP = protocol.LoopShape(size_bytes=4096, passes=3)

#: One of each kind, with all that it can hold.
EVENTS: tuple[Event, ...] = (
    protocol.Booted(release="7.3.4", python="3.13.5"),
    protocol.Waiting(tests={"test_add.py::test_one": ("R1", "R2")}),
    protocol.CellBegan(cell="c/rust"),
    protocol.TestBegan(id="test_x.py::test", rules=("R1", "R2")),
    protocol.TestEnded(
        id="test_x.py::test",
        rules=(),
        outcome=Outcome.SKIPPED,
        duration_s=0.25,
        message="two\nlines \N{SNOWMAN} \udcff",
    ),
    protocol.CountTaken(
        values=protocol.Count(target=9, actual=8, real_s=1.5, user_s=0.5, system_s=0.25)
    ),
    protocol.LoopTaken(
        values=protocol.Passes(
            size_bytes=4096,
            buffers=BufferKind.FRESH,
            read_ns=(9, 8),
            write_ns=(7, 6),
            read_faults=(1, 0),
            write_faults=(0, 0),
        )
    ),
    protocol.SectionBegan(),
    protocol.FigureTaken(
        values=protocol.Segments(
            timing=TIMING, cell="c/c", load=1, first=26, lengths=(32, 64), faults=(0, 1)
        )
    ),
    protocol.TurnsTaken(
        values=protocol.Turns(
            timing=replace(TIMING, path="/tmp/x"),
            module="",
            tester="c",
            calls=9,
            latency_ns=(1.5, 2.5),
            minor_faults=0.125,
        )
    ),
    protocol.Ready(),
    protocol.Answered(answers={"mdriver_c": [["read", 0, "00"], []]}),
    protocol.WrittenByProgram(line="[    5.1] BUG: x"),
    protocol.FileWritten(name="c-c.pytest.log", content="MSBmYWlsZWQ="),
    protocol.PlugAsked(number=1, plugged=False),
    protocol.Alive(),
    protocol.CellEnded(outcome=Outcome.FAILED, problems=("did not unload",)),
    protocol.Ended(),
)

MEASUREMENT = protocol.Measurement(timings=(TIMING,), loads=2, rounds=7, turns=3, loop=LOOP)

#: One of each kind, with all that it can hold.
JOBS: tuple[CellJob, ...] = (
    protocol.MatrixJob(
        pytest_args=("-k", "R1"),
        rules=("R4",),
        files=("test_add.py",),
        tests=("test_add.py::test_one",),
    ),
    protocol.DifferentialJob(package="differential"),
    protocol.CountJob(threads=3, increments=9, method="add"),
    protocol.MeasureJob(measurement=MEASUREMENT),
    protocol.TurnsJob(measurement=MEASUREMENT),
)

CELL = protocol.PlannedCell(
    name="c/rust", module="mdriver_c", tester="rust", path="/m.ko", job=JOBS[0]
)

PLAN = protocol.Plan(
    mode=Job.MEASURE,
    port="/dev/ttyS1",
    cells=tuple(replace(CELL, job=job) for job in JOBS),
    modules={"mdriver_c": protocol.PlannedModule(path="/m.ko")},
    testers={"rust": "mdriver_tester_rust"},
    matrix="/matrix",
    version="0.1.0",
    limit_s=15.5,
    magic="/magic.so",
    loop="/loop",
    devices=(protocol.PlannedDevice(model="edu", port="0000:00:10.0"),),
    hotplug=True,
)


def find_kind(event: Event) -> str:
    return event.KIND


def read(event: Event) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(protocol.render_event(event, 2.0))
    return values


def test_every_kind_of_event_is_tried_here() -> None:
    assert [event.KIND for event in EVENTS] == list(protocol.EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=find_kind)
def test_an_event_comes_out_as_it_went_in(event: Event) -> None:
    line = protocol.render_event(event, 2.0004)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert protocol.parse_event(line) == replace(event, at_s=2.0)


@pytest.mark.parametrize("event", EVENTS, ids=find_kind)
def test_an_event_that_was_cut_is_none(event: Event) -> None:
    line = protocol.render_event(event, 2.0)
    assert all(protocol.parse_event(line[:length]) is None for length in range(len(line) - 1))


@pytest.mark.parametrize("event", EVENTS, ids=find_kind)
def test_a_key_that_an_event_does_not_have_is_refused(event: Event) -> None:
    line = json.dumps({**read(event), "weather": "fine"})
    with pytest.raises(ProtocolError, match=f"{type(event).__name__} has unknown 'weather'"):
        protocol.parse_event(line)


@pytest.mark.parametrize("event", EVENTS, ids=find_kind)
def test_a_key_that_an_event_lacks_is_refused(event: Event) -> None:
    for name in (field.name for field in fields(event)):
        values = read(event)
        del values[name]
        with pytest.raises(ProtocolError, match=f"{type(event).__name__} has no '{name}'"):
            protocol.parse_event(json.dumps(values))


@pytest.mark.parametrize("event", EVENTS, ids=find_kind)
def test_a_value_of_another_type_is_refused(event: Event) -> None:
    for name in (field.name for field in fields(event)):
        wrong = "yes" if isinstance(getattr(event, name), bool) else True
        with pytest.raises(ProtocolError, match=f"{type(event).__name__}|is not an object"):
            protocol.parse_event(json.dumps({**read(event), name: wrong}))


def test_what_is_in_a_part_of_an_event_is_looked_at_too() -> None:
    values = read(next(e for e in EVENTS if isinstance(e, protocol.FigureTaken)))
    del values["values"]["timing"]["operation"]
    with pytest.raises(ProtocolError, match="Timing has no 'operation'"):
        protocol.parse_event(json.dumps(values))
    values = read(next(e for e in EVENTS if isinstance(e, protocol.FigureTaken)))
    values["values"]["lengths"].append(3)
    with pytest.raises(ProtocolError, match=r"Segments\.lengths cannot be \[32, 64, 3\]"):
        protocol.parse_event(json.dumps(values))


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_is_on_the_line_as_it_always_was(outcome: Outcome) -> None:
    ended = protocol.CellEnded(outcome=outcome, problems=())
    assert read(ended) == {
        "event": "cell_end",
        "at_s": 2.0,
        "outcome": outcome.value,
        "problems": [],
    }


def test_a_misspelt_outcome_is_refused() -> None:
    line = '{"event": "cell_end", "at_s": 1.0, "outcome": "pased", "problems": []}'
    with pytest.raises(ProtocolError, match=r"CellEnded\.outcome cannot be 'pased'"):
        protocol.parse_event(line)


def test_an_event_that_the_protocol_does_not_have_is_refused() -> None:
    with pytest.raises(ProtocolError, match="unknown event"):
        protocol.parse_event('{"event": "weather", "at_s": 1.0}')


# -- the plan ---------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, cells=())])
def test_a_plan_comes_out_as_it_went_in(plan: protocol.Plan) -> None:
    assert protocol.parse_plan(protocol.render_plan(plan)) == plan


@pytest.mark.parametrize("name", [field.name for field in fields(PLAN)])
def test_a_plan_without_one_of_its_keys_is_refused(name: str) -> None:
    values = json.loads(protocol.render_plan(PLAN))
    values["not_" + name] = values.pop(name)
    with pytest.raises(ProtocolError, match=f"Plan has unknown 'not_{name}', no '{name}'"):
        protocol.parse_plan(json.dumps(values))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ({"mode": "rest"}, "Plan.mode cannot be 'rest'"),
        ({"limit_s": "15"}, "Plan.limit_s cannot be '15'"),
        ({"cells": {}}, "Plan.cells cannot be {}"),
        ({"cells": [{}]}, "PlannedCell has no 'job'"),
        ({"modules": {"m": {"file": "x"}}}, "PlannedModule has unknown 'file', no 'parameters'"),
        ({"testers": []}, "Plan.testers cannot be []"),
        ({"testers": {"c": 1}}, "Plan.testers cannot be 1"),
    ],
)
def test_a_value_of_a_plan_that_its_vm_could_not_use_is_refused(
    spoil: dict[str, Any], why: str
) -> None:
    values = json.loads(protocol.render_plan(PLAN))
    with pytest.raises(ProtocolError, match=re.escape(why)):
        protocol.parse_plan(json.dumps({**values, **spoil}))


def test_every_kind_of_job_is_tried_here() -> None:
    assert {type(job) for job in JOBS} == set(get_args(CellJob))
    # A shell has no cells, and a VM that waits has none yet.
    assert {job.KIND for job in JOBS} == set(Job) - {Job.SHELL, Job.WAIT}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.KIND)
def test_a_job_has_its_own_keys_and_no_others(job: CellJob) -> None:
    values = json.loads(json.dumps(CELL, default=protocol.to_fields))
    own = json.loads(json.dumps(job, default=protocol.to_fields))
    assert own["kind"] == job.KIND
    for name in (field.name for field in fields(job)):
        spoiled = {**own, "not_" + name: own[name]}
        del spoiled[name]
        with pytest.raises(ProtocolError, match=f"unknown 'not_{name}', no '{name}'"):
            protocol.from_json(protocol.PlannedCell, {**values, "job": spoiled})


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ([], "PlannedCell.job cannot be []"),
        ({}, "PlannedCell.job cannot be {}"),
        ({"kind": "rest"}, "PlannedCell.job cannot be {'kind': 'rest'}"),
        ({"kind": ["count"]}, "PlannedCell.job cannot be"),
        ({"kind": "shell"}, "PlannedCell.job cannot be"),
        ({"kind": "count"}, "CountJob has no 'increments'"),
        (
            {"kind": "count", "threads": 1.5, "increments": 1, "method": "lock"},
            "CountJob.threads cannot be 1.5",
        ),
        (
            {"kind": "count", "threads": True, "increments": 1, "method": "lock"},
            "CountJob.threads cannot be True",
        ),
        ({"kind": "measure", "measurement": []}, "Measurement is not an object: []"),
        ({"kind": "turns", "measurement": {"timings": []}}, "Measurement has no 'device_bytes'"),
    ],
)
def test_a_job_that_a_vm_could_not_do_is_refused(job: object, why: str) -> None:
    values = json.loads(json.dumps(CELL, default=protocol.to_fields))
    with pytest.raises(ProtocolError, match=re.escape(why)):
        protocol.from_json(protocol.PlannedCell, {**values, "job": job})


@pytest.mark.parametrize("text", ["", "[", "[]", "null", "\udcff", "[" * 100_000])
def test_a_file_that_holds_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="the plan is not one of ours"):
        protocol.parse_plan(text)


# -- requests ---------------------------------------------------------------------------------

REQUEST = protocol.Request(
    size=4096, tester="rust", steps=(["read", {"file": 0, "size": 9}], ["seek", {}])
)


@pytest.mark.parametrize("request_", [REQUEST, None, replace(REQUEST, steps=())])
def test_a_request_comes_out_as_it_went_in(request_: protocol.Request | None) -> None:
    line = protocol.render_request(request_)
    assert "\n" not in line
    assert protocol.parse_request(line) == request_


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"size": 1, "tester": "c"}', "Request has no 'steps'"),
        ('{"size": 1, "tester": "c", "steps": [], "seed": 1}', "Request has unknown 'seed'"),
        ('{"size": "1", "tester": "c", "steps": []}', "Request.size cannot be '1'"),
        ('{"size": 1, "tester": "c", "steps": {}}', "Request.steps cannot be {}"),
        ("[]", "Request is not an object: []"),
        ('{"size": 1', "a request is not JSON"),
    ],
)
def test_a_line_that_makes_no_request_is_refused(line: str, why: str) -> None:
    with pytest.raises(ProtocolError, match=re.escape(why)):
        protocol.parse_request(line)


# -- the delivery -----------------------------------------------------------------------------

DELIVERY = protocol.Delivery(
    time_s=1.5,
    entropy="00ff",
    files={"/twinmod/module/mdriver_c.ko": "aGVsbG8="},
    links={"/usr/lib/libx.so": "libx.so.1"},
    source_time=1,
    ports=("0000:00:10.0",),
    plan=PLAN,
)


def test_a_delivery_is_one_line_that_comes_out_as_it_went_in() -> None:
    line = protocol.render_delivery(DELIVERY)
    assert "\n" not in line
    assert protocol.parse_delivery(line) == DELIVERY


@pytest.mark.parametrize("line", ["", "{", "null", protocol.render_plan(PLAN)])
def test_what_is_not_a_delivery_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError, match="the delivery is not one of ours"):
        protocol.parse_delivery(line)


@pytest.mark.parametrize("problem", ["", "device-0 is still plugged"])
def test_a_reply_comes_out_as_it_went_in(problem: str) -> None:
    reply = protocol.Plugged(problem=problem)
    assert protocol.parse_reply(protocol.render_reply(reply)) == reply


@pytest.mark.parametrize("line", ["", "null", "{}", '{"problem": 1}', "[" * 100_000])
def test_what_is_no_reply_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError):
        protocol.parse_reply(line)

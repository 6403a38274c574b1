# SPDX-License-Identifier: GPL-2.0-only
"""The matrix, collected once in a VM: each cell runs its tests in a child of the process that did.

In an emulated VM it takes seconds to import pytest and to collect, and milliseconds to fork.
"""

import gc
import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twinmod.guest import output
from twinmod.guest.child import Heartbeat
from twinmod.guest.devices import Devices
from twinmod.guest.plugin import PYTEST_SAVINGS, Announcer
from twinmod.guest.protocol import Alive, MatrixJob, Plan, PlannedCell
from twinmod.guest.stream import Stream

#: What pytest says while it collects.
LOG = Path("/tmp/collection.log")

#: What brings options, markers and fixtures.
PLUGIN = "twinmod.guest.testing.plugin"

#: Which module the matrix is collected for: each cell puts its own in its place.
NO_MODULE = "collected"


def rehearse() -> None:
    """Collect an empty folder: pytest then need not be imported in the clones of this VM."""
    pytest = importlib.import_module("pytest")
    former = output.Former()
    output.redirect(LOG)
    with tempfile.TemporaryDirectory() as folder:
        pytest.main([*plan_common(folder), "--collect-only"])
    former.restore()


def plan_common(matrix: str) -> list[str]:
    """Return the arguments of pytest that every cell has.

    Args:
        matrix: The folder with the tests.
    """
    return [
        matrix,
        "--rootdir",
        matrix,
        "-p",
        PLUGIN,
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--strict-markers",
        "-q",
        "--no-header",
        "--color=no",
        *PYTEST_SAVINGS,
    ]


class Collection:
    """A pytest plugin that holds the collected matrix while cells run.

    Args:
        plan: Names the matrix.
        stream: Told that the agent is alive, while it collects.
    """

    def __init__(self, plan: Plan, stream: Stream) -> None:
        self.plan = plan
        self.stream = stream
        # pytest's exit status, of a matrix that was not collected.
        self.status = 0
        # Of every test that was collected.
        self.rules: dict[str, tuple[str, ...]] = {}
        # What there was before the module of the next cell was loaded.
        self.devices_before: Devices | None = None
        self._parser: Any = None
        self._session: Any = None
        self._act: Callable[[], None] = lambda: None
        self._error: BaseException | None = None
        self._former = output.Former()

    def hold(self, act: Callable[[], None]) -> None:
        """Collect the matrix, and then do something; what pytest says of it goes to LOG.

        Args:
            act: Runs cells. It is called once, whether the matrix was collected or not.
        """
        pytest = importlib.import_module("pytest")
        self._act = act
        # To collect makes many objects, and all of them stay.
        gc.disable()
        tester = next(iter(self.plan.testers), "")
        none = ("--module", NO_MODULE, "--module-path", NO_MODULE, "--tester", tester)
        output.redirect(LOG)
        self.status = int(pytest.main([*plan_common(self.plan.matrix), *none], plugins=[self]))
        self._former.restore()
        if self._error is not None:
            raise self._error
        if self._session is None:
            act()

    def run(self, cell: PlannedCell, job: MatrixJob, heartbeat: Heartbeat) -> int:
        """Run a cell's tests in this process, a child; return pytest's exit status."""
        if self._session is None:
            sys.stdout.write(LOG.read_text(errors="replace"))
            return self.status
        config, session = self._session.config, self._session
        options = self._parser.parse(self._plan_arguments(cell, job, heartbeat))
        vars(config.option).update(vars(options))
        vars(config.option)["devices_before"] = self.devices_before
        config.pluginmanager.register(Announcer(self.stream, heartbeat, self.rules))
        session.items = self._pick_items(job)
        config.hook.pytest_collection_modifyitems(
            session=session, config=config, items=session.items
        )
        session.testscollected = len(session.items)
        status = self._run_tests()
        config.hook.pytest_sessionfinish(session=session, exitstatus=status)
        return status

    def _run_tests(self) -> int:
        """Run what is left of the collected tests, as pytest.main() does."""
        pytest, session = importlib.import_module("pytest"), self._session
        try:
            session.config.hook.pytest_runtestloop(session=session)
        except session.Failed:
            return int(pytest.ExitCode.TESTS_FAILED)
        except (session.Interrupted, KeyboardInterrupt):
            return int(pytest.ExitCode.INTERRUPTED)
        if session.testsfailed:
            return int(pytest.ExitCode.TESTS_FAILED)
        if not session.testscollected:
            return int(pytest.ExitCode.NO_TESTS_COLLECTED)
        return int(pytest.ExitCode.OK)

    def _pick_items(self, job: MatrixJob) -> list[Any]:
        """Return the collected tests that a job is for, in the order that it has them."""
        paths = {Path(self.plan.matrix, name) for name in job.files}
        items = [item for item in self._session.items if not paths or item.path in paths]
        if not job.tests:
            return items
        order = {name: number for number, name in enumerate(job.tests)}
        chosen = (item for item in items if item.nodeid in order)
        return sorted(chosen, key=lambda item: order[item.nodeid])

    def _plan_arguments(self, cell: PlannedCell, job: MatrixJob, heartbeat: Heartbeat) -> list[str]:
        """Return the arguments of pytest for one cell."""
        return [
            *plan_common(self.plan.matrix),
            "--module",
            cell.module,
            "--module-path",
            cell.path,
            "--tester",
            cell.tester,
            "--tester-package",
            self.plan.testers.get(cell.tester, ""),
            "--marks",
            str(heartbeat.descriptor),
            "--module-version",
            self.plan.version,
            *job.pytest_args,
            *(f"--rule={rule}" for rule in job.rules),
        ]

    # -- pytest's hooks -----------------------------------------------------------------------

    def pytest_addoption(self, parser: Any) -> None:
        """Keep what parses the options of each cell."""
        self._parser = parser

    def pytest_collection_finish(self, session: Any) -> None:
        """Note the rules of every test that this kernel can run."""
        for item in session.items:
            self.rules[item.nodeid] = tuple(
                rule for marker in item.iter_markers("rule") for rule in marker.args
            )

    def pytest_collectreport(self) -> None:
        """Say that it goes on, for each file: all of them take long on a busy machine."""
        self.stream.emit(Alive())

    def pytest_runtestloop(self, session: Any) -> bool | None:
        """Run cells, once everything is collected; leave the tests of a cell to pytest."""
        if self._session is not None or session.testsfailed:
            return None
        self._session = session
        gc.freeze()
        self._former.restore()
        try:
            self._act()
        except BaseException as error:
            # pytest would take it for a fault of its own, and go on.
            self._error = error
        finally:
            # What pytest says at its end is of a run that had no test of its own.
            output.redirect(LOG)
        return True

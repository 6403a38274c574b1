# SPDX-License-Identifier: GPL-2.0-only
"""Progress on standard error: a line that moves on a terminal, plain lines elsewhere."""

import errno
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import rich.console


class Progress(Protocol):
    """Where an act says what it is doing; library code never prints."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        """Show that a phase runs until the context is left."""

    def note(self, text: str) -> None:
        """Show one line between phases."""

    def detail(self, text: str) -> None:
        """Say how far the running phase is, beside its elapsed time."""


class Quiet:
    """Progress of what runs in the background: its caller says how far it is."""

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Say nothing."""
        del title
        yield

    def note(self, text: str) -> None:
        """Say nothing."""

    def detail(self, text: str) -> None:
        """Say nothing."""


#: Seconds between the lines that say, where no terminal shows it, that a phase still runs.
HEARTBEAT_S = 20.0


class Console(rich.console.Console):
    """A console whose caller decides what happens when its reader has closed the pipe."""

    def on_broken_pipe(self) -> None:
        """Raise what rich would end the program for, with the status of failed tests."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def accept_all_text() -> None:
    """Let standard output and error show what their encoding lacks as its escape.

    A test's words, a folder's name or a kernel's log may hold any character, and the caller's
    locale may know few.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class TerminalProgress:
    """Shows phases with their elapsed time; NO_COLOR and FORCE_COLOR are honoured by rich."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        # (title, seconds) of every phase that ended, in that order.
        self.durations: list[tuple[str, float]] = []
        self._detail = ""

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Show that a phase runs until the context is left, then how long it took."""
        began = time.monotonic()
        self._detail = ""

        def render() -> str:
            return f"{title} ... {time.monotonic() - began:.0f} s  {self._detail}".rstrip()

        if self.console.is_terminal:
            with self.console.status(title) as status, _every(0.2, lambda: status.update(render())):
                yield
        else:
            self.note(f"{title} ...")
            with _every(HEARTBEAT_S, lambda: self.note(render())):
                yield
        seconds = time.monotonic() - began
        self.durations.append((title, seconds))
        self.note(f"{title}: {seconds:.1f} s")

    def detail(self, text: str) -> None:
        """Say how far the running phase is."""
        self._detail = text

    def note(self, text: str) -> None:
        """Show one line."""
        self.console.print(text, markup=False, soft_wrap=True)


@contextmanager
def _every(interval_s: float, act: Callable[[], object]) -> Iterator[None]:
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(interval_s):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

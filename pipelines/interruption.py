"""Ctrl-C and SIGTERM of a command: one line at once, out within seconds, nothing left running.

A command that has something to bring to its end (`draining`) is told of the first SIGTERM instead.

The first signal prints the line and raises KeyboardInterrupt in the main thread, so that leases are
given back and clusters closed. What takes longer than GRACE_S is cut off; so is everything when a
second signal comes.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from cluster.processes.descendants import leave, leaving, mark_descendants

GRACE_S = 2.0
LOOK_S = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_told: list[Callable[[], str]] = [lambda: "interrupted"]
_came: list[int] = []  # the first signal
_drains: list["Drain"] = []  # told of a SIGTERM, which ends nothing then


@contextmanager
def interrupted_with(told: Callable[[], str]) -> Iterator[None]:
    """Within, an interrupted command says what `told` returns."""
    _told.append(told)
    try:
        yield
    finally:
        _told.remove(told)


@dataclass(slots=True)
class Drain:
    """Whether the command was asked to end by itself. No event: a handler must take no lock.

    `limit_s`: how long it may take to do so.
    """

    limit_s: float
    asked: bool = False

    def wait(self, timeout_s: float) -> None:
        """Until it is asked, or for so long."""
        deadline = time.monotonic() + timeout_s
        while not self.asked and time.monotonic() < deadline:
            time.sleep(LOOK_S)


@contextmanager
def draining(limit_s: float) -> Iterator[Drain]:
    """Within, the first SIGTERM is noted, and nothing else; another signal ends the process.

    So does the watching thread `limit_s` seconds after the SIGTERM, whatever the main one does.
    """
    drain = Drain(limit_s)
    _drains.append(drain)
    try:
        yield drain
    finally:
        _drains.remove(drain)


def obey_signals() -> None:
    """From now on SIGINT and SIGTERM end this process as described above."""
    mark_descendants()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable
    threading.Thread(target=_watch, args=(reader,), daemon=True, name="signals").start()


def leave_if_interrupted() -> None:
    """Exit at once if a signal came; its line has been printed."""
    if _came:
        leave(128 + _came[0])


def _interrupt(number: int, frame: object) -> None:
    """Runs in the main thread, as soon as that runs Python."""
    if number == signal.SIGTERM and _drains and not _drains[-1].asked:
        _drains[-1].asked = True
    elif _tell(number):
        raise KeyboardInterrupt


def _unraisable(raised: "sys.UnraisableHookArgs") -> None:
    """An interrupt may hit where nothing can be raised: the watching thread ends the process."""
    if not _came:
        sys.__unraisablehook__(raised)


def _watch(reader: int) -> None:
    """Runs in a thread of its own: the main one may be in the middle of a long pass."""
    number, drains = _signal(reader), _drains[-1:]
    assert number is not None, "it waited without a limit"
    if number == signal.SIGTERM and drains:
        another = _signal(reader, drains[0].limit_s)
        if another is None:
            _tell(number)
            leave(128 + number)
        number = another
    second, _, _ = select.select([reader], [], [], GRACE_S)
    if not second:
        _tell(number)
    leave(128 + number)


def _signal(reader: int, within_s: float | None = None) -> int | None:
    """The next of SIGNALS; None: none came within so many seconds."""
    deadline = None if within_s is None else time.monotonic() + within_s
    while True:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reader], [], [], left_s)[0]:
            return None
        number = os.read(reader, 1)[0]
        if number in SIGNALS:
            return number


def _tell(number: int) -> bool:
    """Print the line, once; whether this was the time."""
    if _came:
        return False
    _came.append(number)
    leaving.set()
    with suppress(Exception):
        print(f"\npaceline: {_told[-1]()}", file=sys.stderr, flush=True)
    return True

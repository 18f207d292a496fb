"""Ctrl-C and SIGTERM of a command: one line at once, out within seconds, nothing left running.

The first signal prints the line and raises `Interrupted` in the main thread, so that locks are
released and clusters closed. What takes longer than GRACE_S is cut off; so is everything when a
second signal comes.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cluster.processes import leave

GRACE_S = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_told: list[Callable[[], str]] = [lambda: "interrupted"]
_came = threading.Event()


class Interrupted(KeyboardInterrupt):
    """The command was told to stop; `code` is its exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


@contextmanager
def interrupted_with(told: Callable[[], str]) -> Iterator[None]:
    """Within, an interrupted command says what `told` returns."""
    _told.append(told)
    try:
        yield
    finally:
        _told.remove(told)


def obey_signals() -> None:
    """From now on SIGINT and SIGTERM end this process as described above."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    threading.Thread(target=_watch, args=(reader,), daemon=True, name="signals").start()


def _interrupt(number: int, frame: object) -> None:
    """Runs in the main thread, as soon as that runs Python."""
    if not _came.is_set():
        _tell()
        raise Interrupted(number)


def _watch(reader: int) -> None:
    """Runs in a thread of its own: the main one may be in the middle of a long pass."""
    number = _signal(reader)
    second, _, _ = select.select([reader], [], [], GRACE_S)
    if not second:
        _tell()
    leave(128 + number)


def _signal(reader: int) -> int:
    while True:
        number = os.read(reader, 1)[0]
        if number in SIGNALS:
            return number


def _tell() -> None:
    if not _came.is_set():
        _came.set()
        with suppress(Exception):
            print(f"\npaceline: {_told[-1]()}", file=sys.stderr, flush=True)

"""This process and those that it started, ended at once."""

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

import psutil

# Set once this process has been told to end and will call `leave`: what closes clusters then leaves
# that to it. Threads that still use Ray would end the process in their own way at `ray.shutdown`.
leaving = threading.Event()


SPINS = 10_000  # some 0.15 ms: longer than between two kernels of a pass


def share_cores() -> None:
    """Let OpenMP's threads, here and in processes started from here, sleep soon when they wait.

    By default they spin for some milliseconds. On a machine that is busy with other work they take
    the cores from those that they wait for: a pass took a hundred times as long there. Call it
    before torch is loaded.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def leave(code: int) -> NoReturn:
    """Exit with `code`, without clean-up; ends all processes that this one started, too."""
    with suppress(Exception):
        end_descendants()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def end_descendants() -> None:
    """SIGKILL the children of this process and theirs.

    The children are stopped first, so that none of them starts another process meanwhile.
    """
    me = psutil.Process()
    _signal(me.children(), signal.SIGSTOP)
    _signal(me.children(recursive=True), signal.SIGKILL)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)

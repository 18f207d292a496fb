"""This process and those that it started, ended at once."""

import os
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

# Set once this process has been told to end and will call `leave`: what closes clusters then leaves
# that to it. Threads that still use Ray would end the process in their own way at `ray.shutdown`.
leaving = threading.Event()


SPINS = 10_000  # some 0.15 ms: longer than between two kernels of a pass
MARK = "PACELINE_COMMAND"  # in the environment of all that a command starts
ENDING = Path(__file__).with_name("ending.py")


def share_cores() -> None:
    """Let OpenMP's threads, here and in processes started from here, sleep soon when they wait.

    By default they spin for some milliseconds. On a machine that is busy with other work they take
    the cores from those that they wait for: a pass took a hundred times as long there. Call it
    before torch is loaded.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def mark_descendants() -> None:
    """Mark what this process starts from now on, and what that starts, so that `leave` ends it."""
    os.environ[MARK] = uuid.uuid4().hex


def leave(code: int) -> NoReturn:
    """Exit with `code`, without clean-up; the descendants that are marked are ended, too.

    Another process ends them, once this one has exited. If they were ended from here, a raylet
    could vanish while Ray, in another thread, connects to it. That thread would hold Python's lock
    for 30 seconds, and this one would wait for it.
    """
    with suppress(Exception):
        _end_descendants_later()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _end_descendants_later() -> None:
    environment = dict(os.environ)
    mark = environment.pop(MARK, None)
    if mark is not None:
        nothing = subprocess.DEVNULL
        subprocess.Popen(
            [sys.executable, str(ENDING), str(os.getpid()), MARK, mark],
            env=environment,
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,  # a second Ctrl-C is not for it
        )

"""A process that outlives another one by a moment, and ends what that one has left running.

    python ending.py PARENT NAME VALUE

It waits for its parent, the process PARENT, to exit. Then it sends SIGKILL to every process whose
environment held NAME=VALUE when it was started, until none is found.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

PATIENCE_S = 5.0  # for the parent to exit; after that it is ended as well
PAUSE_S = 0.01


def main(parent: int, name: str, value: str) -> None:
    """Wait for the parent, then end all that carry the mark."""
    _wait_or_kill(parent)
    while found := list(_marked(name, value)):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(PAUSE_S)


def _wait_or_kill(parent: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while os.getppid() == parent:
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(parent, signal.SIGKILL)
        time.sleep(PAUSE_S)


def _marked(name: str, value: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(name) == value:
                yield process


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])

"""CPU time of a job's processes: this one and all that it has started, directly or not."""

import threading
import time
from itertools import pairwise
from typing import Self

import psutil

EVERY_S = 5.0  # a look takes some milliseconds of the job's own time
Seen = dict[int, tuple[str, float]]  # by process: its title, seconds on a core so far


class Watch:
    """Looks now and then while a `with` block runs."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, Seen]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._looks.append((time.monotonic(), _look()))

    def cores(self, last_s: float) -> dict[str, float]:
        """Cores that processes took on average over about the last so many seconds, by title.

        Empty if nothing was seen twice. What a process took since the last look at it is missing.
        """
        end = time.monotonic()
        looks = [(when, seen) for when, seen in self._looks if when > end - last_s]
        cores: dict[str, float] = {}
        for (_, before), (_, after) in pairwise(looks):
            for pid in before.keys() & after.keys():
                title, taken = after[pid][0], after[pid][1] - before[pid][1]
                cores[title] = cores.get(title, 0.0) + taken
        return {title: taken / (looks[-1][0] - looks[0][0]) for title, taken in cores.items()}


def _look() -> Seen:
    own = psutil.Process()
    seen: Seen = {own.pid: ("driver", _seconds(own))}
    for process in own.children(recursive=True):
        try:
            seen[process.pid] = (" ".join(process.cmdline())[:60], _seconds(process))
        except psutil.Error:  # it has ended
            continue
    return seen


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)

"""Where the time of a request went, of requests that ask for it by `trace`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

Fact = int | float | str
MOST = 2000  # spans of a request in a process: some 500 rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a request's time. `began_us`: since 1970 (UTC). `where`: the process."""

    name: str
    began_us: int
    took_us: int
    where: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)


class Spans:
    """What one process notes of a request. Times are those of `time.perf_counter`."""

    def __init__(self, where: str = "") -> None:
        self.found: list[Span] = []
        self._where = where
        self._waiting: float | None = None

    def add(
        self,
        name: str,
        began: float,
        ended: float,
        facts: Mapping[str, Fact] | None = None,
        *,
        where: str | None = None,
    ) -> None:
        """Note that something took from `began` to `ended`; beyond MOST, nothing is noted."""
        if len(self.found) >= MOST:
            return
        if len(self.found) == MOST - 1:
            name, facts = "what follows is not noted", None
        span = Span(
            name=name,
            began_us=_since_1970_us(began),
            took_us=round(1e6 * (ended - began)),
            where=self._where if where is None else where,
            facts=facts or {},
        )
        self.found.append(span)

    def wait(self) -> None:
        """The request waits from now on."""
        self._waiting = time.perf_counter()

    def proceed(self, at: float | None = None) -> None:
        """The request does not wait any more, from `at` on (None: now)."""
        if self._waiting is not None:
            ended = time.perf_counter() if at is None else at
            self.add("waiting", self._waiting, max(ended, self._waiting))
            self._waiting = None


def _since_1970_us(moment: float) -> int:
    """By the clock as it is set now: it may have been corrected since the process began."""
    return round(1e6 * (time.time() - time.perf_counter() + moment))

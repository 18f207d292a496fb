"""What a manager counts of the requests that pass through it: ends, tokens and times."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from models.requests.request import Request, Result
from models.requests.update import Update

REJECTED, CANCELLED = "rejected", "cancelled"
# Upper bounds of the histograms, in seconds.
FIRST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BETWEEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
WHOLE_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(slots=True)
class Histogram:
    """Counts of values by upper bound; the last count is of larger values."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


@dataclass(slots=True)
class Counts:
    """Sums since the manager started. `ended` is by finish reason, CANCELLED and REJECTED."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    first_token_s: Histogram = field(default_factory=lambda: Histogram(FIRST_S))
    between_tokens_s: Histogram = field(default_factory=lambda: Histogram(BETWEEN_S))
    request_s: Histogram = field(default_factory=lambda: Histogram(WHOLE_S))


@dataclass(slots=True)
class Open:
    """A request that has not ended: its prompt, and when it began and last gained a token."""

    prompt_tokens: int
    began: float
    last: float | None = None


class Tally:
    """`began`, then `grew` and `ended` or `cancelled` for each request; `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = Counts()
        self._clock = clock
        self._open: dict[str, Open] = {}

    def rejected(self, requests: Iterable[Request]) -> None:
        """They were turned away."""
        self.counts.ended[REJECTED] += sum(1 for _ in requests)

    def began(self, requests: Iterable[Request]) -> None:
        """They were queued."""
        for request in requests:
            self._open[request.id] = Open(len(request.prompt), self._clock())

    def grew(self, update: Update) -> None:
        """A step brought tokens; each counts as an equal part of the time since the last step."""
        entry = self._open.get(update.id)
        if entry is None or not update.tokens:
            return
        now = self._clock()
        if entry.last is None:
            self.counts.first_token_s.add(now - entry.began)
        else:
            count = len(update.tokens)
            self.counts.between_tokens_s.add((now - entry.last) / count, count)
        entry.last = now

    def ended(self, result: Result) -> None:
        """A request has ended by itself; prompts count where they gave an answer."""
        entry = self._open.pop(result.id, None)
        if entry is None:
            return
        self.counts.ended[result.finish_reason] += 1
        if result.finish_reason != "error":
            self.counts.prompt_tokens += entry.prompt_tokens
            self.counts.generation_tokens += len(result.tokens)
            self.counts.request_s.add(self._clock() - entry.began)

    def cancelled(self, ids: Iterable[str]) -> None:
        """Their client has gone."""
        for each in ids:
            if self._open.pop(each, None) is not None:
                self.counts.ended[CANCELLED] += 1

"""One draft actor as a target sees it: what is under way, how late it is, whether it is any good.

Knows nothing of Ray: `send` gives a future.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from statistics import median

from actors.messages import DraftAsk

Send = Callable[[DraftAsk], "Future[object]"]

MAX_UNDER_WAY = 3  # asks without a reply: one for each half of the batch, and one that is late
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 20.0  # after failures; doubled each time
LATE_IN_A_ROW = 8  # after so many, fewer asks are sent
MOST_SKIPPED = 32  # asks left out between two


@dataclass(slots=True, eq=False)
class Flight:
    """An ask under way."""

    ask: DraftAsk
    future: "Future[object]"
    sent: float
    arrived: float | None = None

    @property
    def latency(self) -> float:
        """Seconds from ask to reply, or to now."""
        return (self.arrived or time.perf_counter()) - self.sent

    def land(self, _: "Future[object]") -> None:
        """Note the time; called by whoever brings the reply."""
        self.arrived = time.perf_counter()


@dataclass(slots=True, eq=False)
class Line:
    """The way to a draft actor. `requests`: those whose drafts come from there."""

    name: str
    send: Send
    requests: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)  # requests that it need not know any more
    _flights: list[Flight] = field(default_factory=list)
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    _failures: int = 0
    _down_until: float = 0.0
    _late: int = 0
    _skipped: int = 0

    @property
    def up(self) -> bool:
        """Whether there is hope."""
        return time.perf_counter() >= self._down_until

    def willing(self) -> bool:
        """Whether to ask now: there is room, and replies have not been late again and again."""
        if not self.up or sum(not f.future.done() for f in self._flights) >= MAX_UNDER_WAY:
            return False
        excess = self._late - LATE_IN_A_ROW
        self._skipped += 1
        return excess < 0 or self._skipped > min(2**excess, MOST_SKIPPED)

    def ask(self, ask: DraftAsk) -> Flight:
        """Send an ask; does not wait."""
        began = time.perf_counter()
        self._skipped = 0
        try:
            future = self.send(ask)
        except Exception as error:  # whatever a transport may raise: the drafter is of no use
            future = Future()
            future.set_exception(error)
        flight = Flight(ask, future, began)
        future.add_done_callback(flight.land)
        self._flights.append(flight)
        return flight

    def landed(self) -> list[Flight]:
        """The asks that have been answered since the last call."""
        done = [f for f in self._flights if f.future.done()]
        self._flights = [f for f in self._flights if f not in done]
        self._latencies.extend(f.latency for f in done)
        return done

    def worth_waiting(self, flight: Flight, patience_s: float) -> float:
        """Seconds that a draft under way may be waited for: 0 where it will be too late anyway."""
        usual = median(self._latencies) if self._latencies else 0.0
        left = flight.sent + usual - time.perf_counter()
        return 0.0 if left > patience_s else max(0.0, min(patience_s, left + patience_s))

    def judge(self, *, in_time: bool) -> None:
        """A draft was there when it was needed, or not."""
        self._late = 0 if in_time else self._late + 1

    def trust(self) -> None:
        """A reply made sense."""
        self._failures = 0

    def distrust(self) -> None:
        """It failed or talked nonsense: leave it alone for a while."""
        pause = min(FIRST_PAUSE_S * 2**self._failures, LAST_PAUSE_S)
        self._failures += 1
        self._down_until = time.perf_counter() + pause

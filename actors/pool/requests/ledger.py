"""Which request is where: none lost, none twice, whatever becomes of the actors.

Knows nothing of Ray. Each submitted request gets a ticket, a number that is never used again. The
request travels with it and the result comes back with it, so an id can be used again as soon as its
request was cancelled or its result was taken.

When an actor ends, its requests run again on others; one that streams continues after the tokens
that were received, so that each is reported once. So do streams whose actor is stalled. A request
is not blamed for that: only one that was on two actors whose processes died, or on one whose token
loop raised an exception, becomes a suspect. Suspects run in groups that have an actor to themselves
(suspects.py). A request ends with an error, which is marked as retryable, only when two more actors
have failed with it alone on them.
"""

import heapq
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from actors.messages import Ended, Streamed, Submission
from actors.pool.requests.death import Death, Evidence
from actors.pool.requests.so_far import SoFar
from actors.pool.requests.suspects import Suspects
from actors.pool.requests.warmth import Warmth, beginnings, choose
from models.errors import InvalidRequest
from models.requests.request import Request, Result
from models.requests.spans import Spans
from models.requests.update import Update

SUSPECT_AFTER = 2  # evidence: two deaths of processes, or one exception
BLAME_AFTER = 2  # failures of actors that a suspect had to itself


@dataclass(slots=True)
class Entry:
    """A request that has not ended, and the actor it is on."""

    ticket: int
    request: Request
    arrival: int = field(init=False)  # the first ticket: its place in the order
    actor: str | None = None
    failures: int = 0  # of actors that it was on
    evidence: int = 0
    alone: int = 0  # failures of actors that it had to itself, as a suspect
    spans: Spans | None = field(init=False)  # if the request asks for a trace
    placed: float = 0.0  # when it came to its actor
    so_far: SoFar = field(init=False)

    def __post_init__(self) -> None:
        self.arrival, self.so_far = self.ticket, SoFar(self.request)
        self.spans = Spans("pool") if self.request.trace else None

    def leave(self, how: str) -> None:
        """It is on its actor no more; `how` that ended."""
        if self.spans is not None and self.actor is not None:
            facts = {"actor": self.actor, "end": how}
            self.spans.add("on an actor", self.placed, time.perf_counter(), facts)

    def traced(self, result: Result) -> Result:
        """A result with what was noted here, if it asked for a trace."""
        if self.spans is None:
            return result
        return replace(result, spans=(*self.spans.found, *result.spans))


class Ledger:
    """Requests from submission until their one result is taken."""

    def __init__(self) -> None:
        self._tickets = count(1)
        self._entries: dict[int, Entry] = {}
        self._running: dict[str, int] = {}  # ticket by id
        self._waiting: list[tuple[int, int, int]] = []  # a heap: priority, arrival, ticket
        self._suspects = Suspects()
        self._warmth = Warmth()
        self._on: dict[str, dict[int, None]] = {}  # by actor, in the order of placing
        self._ended: dict[str, Result] = {}  # not yet taken
        self._updates: list[Update] = []  # not yet taken
        self._num_streams = 0  # requests that stream and have not ended
        self.num_resumed = 0  # times that a request continued after tokens that had streamed
        self.num_replayed = 0  # such tokens

    def __len__(self) -> int:
        """Requests whose result was not taken."""
        return len(self._entries) + len(self._ended)

    @property
    def num_running(self) -> int:
        """Requests that have not ended."""
        return len(self._entries)

    @property
    def has_streams(self) -> bool:
        """Whether a request streams that has not ended."""
        return self._num_streams > 0

    @property
    def num_waiting(self) -> int:
        """Requests that are on no actor."""
        return len(self._entries) - sum(map(len, self._on.values()))

    def on(self, actor: str) -> list[str]:
        """The ids of the requests on an actor."""
        return [self._entries[ticket].request.id for ticket in self._on.get(actor, ())]

    def load(self, actor: str) -> int:
        """Requests on an actor."""
        return len(self._on.get(actor, ()))

    # --- from and to the caller ---------------------------------------------------------------

    def add(self, requests: Iterable[Request]) -> None:
        """Queue all requests, or none: raises InvalidRequest if an id is in use already."""
        requests, seen = list(requests), set[str]()
        for request in requests:
            if request.id in seen:
                raise InvalidRequest(f"request {request.id!r} is given twice; ids must differ")
            if request.id in self._running:
                raise InvalidRequest(f"request {request.id!r} is running already; ids must differ")
            if request.id in self._ended:
                raise InvalidRequest(
                    f"request {request.id!r} has ended and its result was not taken yet; take or "
                    "cancel it before the id is used again"
                )
            seen.add(request.id)
        for request in requests:
            entry = Entry(next(self._tickets), request)
            self._entries[entry.ticket] = entry
            self._running[request.id] = entry.ticket
            self._num_streams += request.stream
            self._wait(entry)

    def drop(self, request_id: str) -> Entry | None:
        """Forget a request, its updates and its result; the entry if it had not ended."""
        self._ended.pop(request_id, None)
        self._updates = [update for update in self._updates if update.id != request_id]
        ticket = self._running.get(request_id)
        if ticket is None:
            return None
        entry = self._forget(ticket)
        if entry.actor is None:  # `assign` passes over the tickets that it does not find
            self._suspects.drop(ticket)
        return entry

    def take(self) -> list[Result]:
        """The results since the last call."""
        results, self._ended = list(self._ended.values()), {}
        return results

    @property
    def has_updates(self) -> bool:
        return bool(self._updates)

    def take_updates(self) -> list[Update]:
        """What streaming requests have gained since the last call."""
        updates, self._updates = self._updates, []
        return updates

    # --- from and to the actors ---------------------------------------------------------------

    def assign(
        self, limits: Mapping[str, int], cold: Container[str] = ()
    ) -> dict[str, list[Submission]]:
        """Place waiting requests on actors, up to each one's limit: the warm, or least loaded.

        `cold`: actors that read every prompt from its beginning.
        """
        placed: dict[str, list[Submission]] = {}
        claimed = self._suspects.claim(limits, self.load)
        for actor in limits:
            if actor in claimed and self.load(actor) == 0:
                for ticket in self._suspects.next_group(actor):
                    self._place(ticket, actor, placed)
        while self._waiting:
            room = [a for a in limits if a not in claimed and self.load(a) < limits[a]]
            if not room:
                break
            *_, ticket = heapq.heappop(self._waiting)
            if ticket in self._entries:  # else it was dropped
                self._place(ticket, self._chosen(ticket, room, limits, cold), placed)
        return placed

    def _chosen(
        self, ticket: int, room: list[str], limits: Mapping[str, int], cold: Container[str]
    ) -> str:
        """The actor for a request, of those with room."""
        if len(limits) == 1:
            return room[0]
        keys = beginnings(self._entries[ticket].request)
        loads = {actor: self.load(actor) for actor in room}
        actor = choose(keys, loads, limits, self._warmth, cold)
        if actor not in cold:
            self._warmth.note(actor, keys)
        return actor

    def note(self, actor: str, streamed: Iterable[Streamed]) -> None:
        """An actor's updates; before the results that came with them."""
        for each in streamed:
            if each.ticket in self._on.get(actor, ()):
                self._entries[each.ticket].so_far.note(each.update)
                self._updates.append(each.update)

    def settle(self, actor: str, ended: Iterable[Ended]) -> list[Result]:
        """An actor's results; returns those that are the first of a request on it."""
        first = []
        for each in ended:
            if each.ticket in self._on.get(actor, ()):
                entry = self._entries[each.ticket]
                entry.leave(each.result.finish_reason)
                self._forget(each.ticket)
                self._ended[entry.request.id] = entry.traced(each.result)
                first.append(each.result)
        return first

    def lose(self, actor: str, death: Death) -> list[Result]:
        """An actor has ended: its requests run again. Returns the results of those given up."""
        lost = [self._entries[ticket] for ticket in self._on.pop(actor, ())]
        tried = self._suspects.has(actor)
        self._suspects.release(actor)
        for entry in lost:
            entry.leave(f"lost: {death.reason}")
            if entry.spans is not None:
                entry.spans.wait()
            entry.actor = None
            entry.failures += death.evidence > Evidence.NONE
            entry.evidence += death.evidence
        if tried and death.evidence == Evidence.NONE:
            self._suspects.repeat([entry.ticket for entry in lost])
            return []
        if tried and len(lost) == 1:
            return self._blame(lost[0], death)
        self._suspects.divide([e.ticket for e in lost if e.evidence >= SUSPECT_AFTER])
        for entry in lost:
            if entry.evidence < SUSPECT_AFTER:
                self._wait(entry)
        return []

    def hand_over(self, actor: str) -> list[int]:
        """An actor is stalled: its streams continue elsewhere. Returns their tickets on it.

        They get new tickets: it may wake up, report them, and run them again later. Requests that
        do not stream would begin anew, so they stay.
        """
        if self._suspects.has(actor):
            return []
        old = [t for t in self._on.get(actor, ()) if self._entries[t].request.stream]
        for ticket in old:
            entry = self._entries.pop(ticket)
            del self._on[actor][ticket]
            entry.leave("stalled")
            entry.ticket, entry.actor = next(self._tickets), None
            self._entries[entry.ticket] = entry
            self._running[entry.request.id] = entry.ticket
            self._wait(entry)
        return old

    def _blame(self, entry: Entry, death: Death) -> list[Result]:
        """An actor failed with this suspect alone on it: try that again, but not for ever."""
        entry.alone += 1
        if entry.alone < BLAME_AFTER:
            self._suspects.divide([entry.ticket])
            return []
        self._forget(entry.ticket)
        result = self._ended[entry.request.id] = entry.traced(_given_up(entry, death))
        return [result]

    def _wait(self, entry: Entry) -> None:
        """In the order of priority, then of arrival: who was placed before comes first again."""
        if entry.spans is not None:
            entry.spans.wait()
        place = entry.request.priority, entry.arrival, entry.ticket
        heapq.heappush(self._waiting, place)

    def _place(self, ticket: int, actor: str, placed: dict[str, list[Submission]]) -> None:
        entry = self._entries[ticket]
        entry.actor = actor
        if entry.spans is not None:
            entry.spans.proceed()
            entry.placed = time.perf_counter()
        self._on.setdefault(actor, {})[ticket] = None
        rest = entry.so_far.rest()
        replayed = len(rest.generated) - len(entry.request.generated)
        self.num_resumed += replayed > 0
        self.num_replayed += replayed
        placed.setdefault(actor, []).append(Submission(ticket=ticket, request=rest))

    def _forget(self, ticket: int) -> Entry:
        entry = self._entries.pop(ticket)
        del self._running[entry.request.id]
        self._num_streams -= entry.request.stream
        if entry.actor is not None:
            del self._on[entry.actor][ticket]
            if not self._on[entry.actor]:
                self._suspects.release(entry.actor)
        return entry


def _given_up(entry: Entry, death: Death) -> Result:
    told = (
        f"given up after {entry.failures} target actors failed while they ran this request, the "
        f"last {entry.alone} of them with no other request: {death.reason}"
    )
    return Result(id=entry.request.id, tokens=(), finish_reason="error", error=told, retryable=True)

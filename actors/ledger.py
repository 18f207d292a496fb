"""Which request is where: none lost, none twice, whatever becomes of the actors.

Knows nothing of Ray. A request that was on two actors when they died is suspected of having killed
them: it then runs alone, so that it takes no neighbours along, and if that one dies too, it ends
with an error.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from models.errors import InvalidRequest
from models.request import Request, Result

SUSPECT_AFTER = 2  # actors lost


@dataclass(slots=True)
class Entry:
    """A request that has not ended, and the actor it is on."""

    request: Request
    actor: str | None = None
    losses: int = 0

    @property
    def suspect(self) -> bool:
        """Whether it must run alone."""
        return self.losses >= SUSPECT_AFTER


class Ledger:
    """Requests from submission to their one result."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._waiting: deque[str] = deque()
        self._suspects: deque[str] = deque()
        self._on: dict[str, set[str]] = {}  # by actor

    def __len__(self) -> int:
        """Requests that have not ended."""
        return len(self._entries)

    @property
    def num_waiting(self) -> int:
        """Requests that are on no actor."""
        return len(self._waiting) + len(self._suspects)

    def load(self, actor: str) -> int:
        """Requests on an actor."""
        return len(self._on.get(actor, ()))

    def add(self, request: Request) -> None:
        """Queue a request. Raises InvalidRequest if one of that id has not ended yet."""
        if request.id in self._entries:
            raise InvalidRequest(f"request {request.id!r} is running already; ids must differ")
        self._entries[request.id] = Entry(request)
        self._waiting.append(request.id)

    def drop(self, request_id: str) -> str | None:
        """Forget a request; the actor it was on."""
        entry = self._entries.pop(request_id, None)
        if entry is None:
            return None
        if entry.actor is None:
            (self._suspects if entry.suspect else self._waiting).remove(request_id)
        else:
            self._on[entry.actor].discard(request_id)
        return entry.actor

    def settle(self, actor: str, results: Iterable[Result]) -> list[Result]:
        """Those of an actor's results that are the first of their request."""
        known = self._on.get(actor, set())
        first = []
        for result in results:
            if result.id in known:
                self.drop(result.id)
                first.append(result)
        return first

    def assign(self, limits: Mapping[str, int]) -> dict[str, list[Request]]:
        """Place waiting requests on the least loaded of the actors, up to each one's limit."""
        placed: dict[str, list[Request]] = {}
        closed = {actor for actor in limits if self._holds_suspect(actor)}
        if self._suspects and (open_ := [a for a in limits if a not in closed]):
            actor = min(open_, key=self.load)  # kept for suspects: fills up no more
            closed.add(actor)
            if self.load(actor) == 0:
                self._place(self._suspects.popleft(), actor, placed)
        while self._waiting:
            room = [a for a in limits if a not in closed and self.load(a) < limits[a]]
            if not room:
                break
            self._place(self._waiting.popleft(), min(room, key=self.load), placed)
        return placed

    def _holds_suspect(self, actor: str) -> bool:
        return any(self._entries[i].suspect for i in self._on.get(actor, ()))

    def _place(self, request_id: str, actor: str, placed: dict[str, list[Request]]) -> None:
        entry = self._entries[request_id]
        entry.actor = actor
        self._on.setdefault(actor, set()).add(request_id)
        placed.setdefault(actor, []).append(entry.request)

    def lose(self, actor: str, reason: str) -> list[Result]:
        """An actor has died: its requests queue up anew, first; results of those given up."""
        given_up = []
        lost = [e for i, e in self._entries.items() if i in self._on.get(actor, ())]
        self._on.pop(actor, None)
        for entry in reversed(lost):
            alone = entry.suspect
            entry.actor, entry.losses = None, entry.losses + 1
            if alone:
                del self._entries[entry.request.id]
                given_up.append(_given_up(entry, reason))
            elif entry.suspect:
                self._suspects.appendleft(entry.request.id)
            else:
                self._waiting.appendleft(entry.request.id)
        return given_up


def _given_up(entry: Entry, reason: str) -> Result:
    told = f"{entry.losses} target actors died while it ran, the last with it alone: {reason}"
    return Result(id=entry.request.id, tokens=(), finish_reason="error", error=told)

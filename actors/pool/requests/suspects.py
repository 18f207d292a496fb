"""Requests that may have killed actors, in groups that each get an actor to themselves.

When a group's actor dies, too, the group is halved: n suspects take about log2(n) deaths to find
the one that kills, and the innocent finish in groups meanwhile. Groups wait in the order of their
making, so halves that finish come between those that die. Requests are known by their tickets.
"""

from collections import deque
from collections.abc import Callable, Collection


class Suspects:
    """Groups that wait for an actor, and the actors on which a group runs."""

    def __init__(self) -> None:
        self._waiting: deque[list[int]] = deque()
        self._actors: set[str] = set()

    def has(self, actor: str) -> bool:
        """Whether a group runs on the actor, which must get no other requests then."""
        return actor in self._actors

    def divide(self, tickets: list[int]) -> None:
        """These were on an actor that died: wait in two groups from now on."""
        half = (len(tickets) + 1) // 2
        self._waiting.extend(group for group in (tickets[:half], tickets[half:]) if group)

    def repeat(self, tickets: list[int]) -> None:
        """These lost their actor through no fault of theirs: they are the next group."""
        self._waiting.appendleft(tickets)

    def drop(self, ticket: int) -> None:
        """Forget a request that waits."""
        for group in self._waiting:
            if ticket in group:
                group.remove(ticket)
                break
        self._waiting = deque(group for group in self._waiting if group)

    def release(self, actor: str) -> None:
        """The group on the actor has ended, or the actor has."""
        self._actors.discard(actor)

    def claim(self, actors: Collection[str], load: Callable[[str], int]) -> set[str]:
        """The actors that groups have or wait for: at most half of all, but at least one."""
        claimed = {actor for actor in actors if actor in self._actors}
        free = sorted((a for a in actors if a not in claimed), key=load)
        most = max(1, len(actors) // 2) - len(claimed)
        return claimed | set(free[: max(0, min(most, len(self._waiting)))])

    def next_group(self, actor: str) -> list[int]:
        """A group that waits, if there is one: it has the actor to itself from now on."""
        if not self._waiting:
            return []
        self._actors.add(actor)
        return self._waiting.popleft()

"""Actors that Ray does not place though it could: found by what Ray says of them, not by the clock.

An actor that starts slowly has its process already, and is left alone. One that has none waits
because others use the resources, because Ray has lost its placement, or because a leftover process
holds the resources for nobody (cluster/processes/leftovers.py). The last two follow the death of
the cluster's own server (GCS).
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup

from actors.pool.places.role import Role
from cluster.placement.placed import has_process, has_room
from cluster.placement.placement import alive_nodes, free_nodes, shortage
from cluster.processes.leftovers import end_leftovers

PATIENCE_S = 30.0  # in which Ray places an actor; twice as long after each thing that was done
LONGEST_S = 600.0
LOOK_EVERY_S = 10.0
MOST_NODES = 16  # that are searched for leftovers at once
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An actor whose process has not been seen."""

    handle: Any
    asked: float  # when
    group: PlacementGroup | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look showed: actors to ask for anew, and nodes (ids) that may have leftovers."""

    forgotten: tuple[str, ...] = ()
    suspected: tuple[str, ...] = ()


class Unplaced:
    """Looks after the placement of a role's actors. Its calls do not wait.

    The cluster's server is asked by another thread, because it may not answer for minutes: then
    nothing is done until it does.
    """

    def __init__(self, role: Role) -> None:
        self._role = role
        self._patience_s = PATIENCE_S
        self._looked = self._acted = time.monotonic()
        self._look: Look | None = None
        self._searches: list[ObjectRef[list[int]]] = []

    def forgotten(self, waiting: Mapping[str, Waiting]) -> list[str]:
        """The names of those to ask for anew; for polling."""
        self._hear()
        if not waiting:
            self._patience_s = PATIENCE_S
        if self._look is None:
            self._begin(waiting)
            return []
        seen = self._look.seen
        if seen is None:
            return []
        self._look = None
        if seen.forgotten or seen.suspected:
            self._acted = time.monotonic()
            self._patience_s = min(2 * self._patience_s, LONGEST_S)
        self._searches += [end_leftovers(node) for node in seen.suspected]
        found = [name for name in seen.forgotten if name in waiting]
        for name in found:
            waited = self._acted - waiting[name].asked
            log.warning("%s found no place for %.0f s: it is asked for anew", name, waited)
        return found

    def _begin(self, waiting: Mapping[str, Waiting]) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        long = {
            name: each
            for name, each in waiting.items()
            if now - max(each.asked, self._acted) >= self._patience_s
        }
        if long:
            self._looked, self._look = now, Look(self._role, long)

    def _hear(self) -> None:
        """What the searches for leftovers have found."""
        if not self._searches:
            return
        done, self._searches = ray.wait(self._searches, num_returns=len(self._searches), timeout=0)
        for ref in done:
            try:
                ended = ray.get(ref)
            except RayError as error:
                log.info("a search for leftover processes failed: %s", error)
                continue
            if ended:
                role = self._role.name
                log.warning("ended %d idle processes: %s actors wait for room", len(ended), role)


class Look:
    """One look at actors that wait, by a thread. `seen`: None until it has ended."""

    def __init__(self, role: Role, waiting: Mapping[str, Waiting]) -> None:
        self.seen: Seen | None = None
        threading.Thread(target=self._run, args=(role, waiting), daemon=True).start()

    def _run(self, role: Role, waiting: Mapping[str, Waiting]) -> None:
        try:
            self.seen = look(role, waiting)
        except Exception as error:  # of many kinds: the cluster or its server has gone, or is busy
            log.info("cannot see whether %s actors have places: %s", role.name, error)
            self.seen = Seen()


def look(role: Role, waiting: Mapping[str, Waiting]) -> Seen:
    """What there is to do for actors that have waited for long. May wait for long itself."""
    lost = {name: each for name, each in waiting.items() if not has_process(each.handle)}
    if not lost:
        return Seen()
    demand = role.demand(1)
    if shortage([demand], free_nodes()) is None:
        return Seen(forgotten=tuple(lost))
    reserved = [n for n, each in lost.items() if each.group is not None and has_room(each.group)]
    if reserved:  # a group ends all that it holds when it is removed, leftovers too
        return Seen(forgotten=tuple(reserved))
    able = [node.id for node in alive_nodes() if shortage([demand], [node]) is None]
    return Seen(suspected=tuple(able[:MOST_NODES]))

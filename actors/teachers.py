"""The teacher actors of a training: started, asked in turn, stopped.

The process that starts them owns them; training workers have their handles only. Ray starts an
actor that dies again, elsewhere if its node is lost, and repeats the calls that it had not
answered. An answer is a function of the texts, so a repeated one is the same.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from actors.errors import PoolFailed
from actors.pool.members import reason_of
from actors.pool.places.placing import TELL_EVERY_S, require_room
from actors.pool.places.role import Role
from actors.teacher import TeacherActor, TeacherConfig
from cluster.placement.placement import Demand, Node, alive_nodes, amounts, selector
from models.drafting.distil.draft_vocabulary import DraftVocabulary
from models.drafting.distil.exam import Played, Trial
from models.drafting.distil.reading import Reading
from models.drafting.distil.texts import Text

RESTARTS = 20  # of an actor, before the training stops; the same command continues
STORE = "object_store_memory"  # a resource of a node, in bytes
PART = 0.3  # of a node's object store that answers on their way may take
log = logging.getLogger(__name__)


class Teachers:
    """Handles of teacher actors, which go to the workers; a `Readers` of a streamed teacher."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors, self._turn = list(actors), 0

    def read(
        self, texts: Sequence[Text], vocabulary: DraftVocabulary | None = None
    ) -> Callable[[], Reading]:
        """Ask the next actor."""
        asked = self._next().read.remote(list(texts), vocabulary)
        return lambda: _copied(ray.get(asked))

    def examine(self, trial: Trial, files: Mapping[str, bytes]) -> dict[int, Played]:
        """Ask the next actor, and wait."""
        found: dict[int, Played] = ray.get(self._next().examine.remote(trial, dict(files)))
        return found

    def pids(self) -> list[int]:
        """Their processes."""
        return list(ray.get([actor.pid.remote() for actor in self._actors]))

    def _next(self) -> Any:
        self._turn += 1
        return self._actors[self._turn % len(self._actors)]


@contextmanager
def teachers(config: TeacherConfig, *, actors: int, beside: Demand) -> Iterator[Teachers]:
    """Start teacher actors and wait until they have loaded; stop them at the end.

    `beside`: the training's workers, for which the cluster must have room, too.

    Raises:
        PoolFailed: there is no room for them, one cannot load the target, or they take too long.
    """
    role = Role(
        name="teacher",
        num_gpus=config.num_gpus,
        labels=selector("target"),
        min_size=actors,
        max_size=actors,
    )
    require_room([role.demand(actors), beside], patience_s=role.place_s)
    options = role.options() | {"max_restarts": RESTARTS, "max_task_retries": -1}
    made: Any = ray.remote(TeacherActor).options(**options)
    handles = [made.remote(config) for _ in range(actors)]
    try:
        found = Teachers(handles)
        try:
            look = partial(_look, [handle.pid.remote() for handle in handles])
            await_all(role, look, partial(_free, role))
        except RayError as error:
            raise PoolFailed(f"a teacher actor cannot start: {reason_of(error)}") from error
        yield found
    finally:
        for handle in handles:
            ray.kill(handle)


def await_all(role: Role, look: Callable[[float], int], free: Callable[[], str]) -> None:
    """Wait until all actors have a place and have loaded; what is waited for is logged.

    `look`: waits for them, so many seconds at most, and returns how many are not ready. `free`:
    what others leave of the cluster.

    Raises:
        PoolFailed: they are not ready within the role's `busy_s` seconds.
    """
    began = time.monotonic()
    while waiting := look(min(TELL_EVERY_S, role.busy_s)):
        waited, demand = time.monotonic() - began, role.demand(waiting)
        if waited >= role.busy_s:
            raise PoolFailed(f"{demand} did not start within {waited:.0f} s; free now: {free()}")
        log.warning("waiting for %s to start since %.0f s; free now: %s", demand, waited, free())


def _look(asked: Sequence[Any], patience_s: float) -> int:
    """How many calls are not answered within this time; raises what one of them raised."""
    deadline, left = time.monotonic() + patience_s, list(asked)
    while left:
        done, left = ray.wait(left, timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            break
        ray.get(done)
    return len(left)


def _free(role: Role) -> str:
    free = ray.available_resources()
    return amounts({name: free.get(name, 0.0) for name in role.each})


def store_room() -> int | None:
    """Bytes of a node's object store that answers on their way may take; see `room_on`."""
    return room_on(alive_nodes(), [selector("target"), selector("trainer")])


def room_on(nodes: Iterable[Node], labels: Sequence[Mapping[str, str]]) -> int | None:
    """A part of the smallest object store of nodes that teachers or workers may use.

    These have one of `labels`. None: there are none yet.
    """
    used = [node for node in nodes if any(own.items() <= node.labels.items() for own in labels)]
    sizes = [node.has.get(STORE, 0.0) for node in used]
    return int(PART * min(sizes)) if sizes else None


def _copied(reading: Reading) -> Reading:
    """In this process's memory: the object store's is free again, and was not to be written."""
    return Reading(states=np.array(reading.states), laws=np.array(reading.laws))

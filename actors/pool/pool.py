"""Targets, and the drafters that they share: requests in, results out, whoever dies in between.

pool = TargetPool.start(EngineConfig(target=PATH), target_actors=2)
pool.submit(requests)
while pool.num_unfinished:
    results = pool.take(timeout_s=1.0)
    updates = pool.take_updates()  # of requests with stream=True
"""

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from actors.errors import RankLost
from actors.messages import PoolState, Taken
from actors.pool.drafter_change import DrafterChange
from actors.pool.members import PING_EVERY_S, PING_STREAMING_S, Pool, death_of
from actors.pool.requests.death import Death, Evidence
from actors.pool.requests.ledger import Ledger
from actors.pool.start import start_actors
from actors.pool.team import describe
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.exactness import weakest
from models.loop.figures import Figures
from models.requests.request import Request, Result
from models.requests.update import Update

__all__ = ["Pool", "TargetPool"]

QUEUE_FACTOR = 2  # requests on an actor at most, in batches: the next wait where the first run
LONG_POLL_S = 10.0
IDLE_S = 30.0  # an actor above the minimum that had nothing to do for so long is stopped
log = logging.getLogger(__name__)


class TargetPool:
    """Runs requests on target actors; each comes back once. Not thread-safe.

    A request whose actor dies runs again elsewhere, with the same tokens. One that streams
    continues there, and no token is reported twice; so it does if its actor is stalled. Only one
    that makes actors fail while nothing else runs on them ends with an error
    (actors/pool/requests/ledger.py).
    """

    def __init__(
        self,
        config: EngineConfig,
        targets: Pool,
        drafts: Pool | None = None,
        *,
        together_s: float = 0.0,
    ) -> None:
        """Use `start`; or hand in pools that have started."""
        self._config, self._targets, self._drafts = config, targets, drafts
        self.drafter = DrafterChange(targets, config, draft_actors=drafts is not None)
        self._together_s = together_s
        self._met: dict[str, frozenset[str]] = {}  # draft actors that each target knows
        self._ledger = Ledger()
        self._takes: dict[str, ObjectRef[Any]] = {}
        self._figures: dict[str, Figures] = {}  # by actor, the dead included
        self._cold: set[str] = set()  # actors that read every prompt from its beginning
        self._busy = time.monotonic()

    @classmethod
    def start(
        cls,
        config: EngineConfig,
        *,
        target_actors: int = 1,
        draft_actors: int = 0,
        max_target_actors: int | None = None,
        num_cpus: float | None = None,
        num_gpus: float = 0.0,
        resources: Mapping[str, float] | None = None,
        draft_gpus: float = 0.0,
        draft_patience: float = 1.0,
        together_s: float = 0.0,
    ) -> Self:
        """Create the actors and wait until they are ready.

        Args:
            draft_actors: where the drafter works; 0: beside each target.
            max_target_actors: grow up to so many while requests queue up.
            num_cpus: of each actor, and its torch threads, unless `config.threads` says otherwise.
                None: one is reserved, and all actors' threads share this machine's cores.
            num_gpus, resources: of each target actor, and of each of its other ranks. draft_gpus:
                of each draft actor.
            draft_patience: how long a target waits for a late draft, in rounds of its own.
            together_s: how long a result may wait for others while there is enough to run: fewer
                messages, where nobody waits for a single one.
        Raises:
            UnsupportedCheckpoint, InvalidOption, PoolFailed.
        """
        config, targets, drafts = start_actors(
            config,
            target_actors=target_actors,
            draft_actors=draft_actors,
            max_target_actors=max_target_actors or target_actors,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources or {},
            draft_gpus=draft_gpus,
            draft_patience=draft_patience,
        )
        return cls(config, targets, drafts, together_s=together_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # --- requests -----------------------------------------------------------------------------

    @property
    def num_unfinished(self) -> int:
        """Requests whose result has not been taken."""
        return len(self._ledger)

    def free_slots(self) -> int:
        """How many more requests would keep the actors busy without piling up.

        Where the pool may grow, also those of one actor more: they wait, so it grows.
        """
        role, actors = self._targets.role, len(self._targets.ready)
        if role.max_size > role.min_size:
            actors = min(actors + 1, role.max_size)
        actors = max(1, actors)
        return max(0, self._limit * actors - self._ledger.num_running)

    def submit(self, requests: Iterable[Request]) -> None:
        """Queue requests, any number: all of them, or none if it raises.

        Raises InvalidRequest for an id that occurs twice or is in use: from `submit` until its
        result is taken or it is cancelled. Raises PoolFailed as `take` does.
        """
        requests = list(requests)
        self._look_after()
        self._ledger.add(requests)
        self._hand_out()

    def cancel(self, ids: Iterable[str]) -> None:
        """Drop requests: no results of them come any more, and their ids can be used again."""
        by_actor: dict[str, list[int]] = {}
        for request_id in ids:
            entry = self._ledger.drop(request_id)
            if entry is not None and entry.actor is not None:
                by_actor.setdefault(entry.actor, []).append(entry.ticket)
        for actor, tickets in by_actor.items():
            if actor in self._targets.members:
                self._targets.members[actor].handle.cancel.remote(tickets)

    def take(self, timeout_s: float = 1.0) -> list[Result]:
        """Results of requests that have ended; waits up to `timeout_s` for the first.

        Returns earlier, without results, if requests have streamed: see `take_updates`.

        Raises PoolFailed if no target actor can be kept alive, UnsupportedCheckpoint if the target
        turns out to be broken.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._look_after()
            results = self._ledger.take()
            left = deadline - time.monotonic()
            if results or self._ledger.has_updates or left <= 0 or not len(self._ledger):
                return results
            self._wait(min(left, 1.0))

    def take_updates(self) -> list[Update]:
        """The new tokens of streaming requests that `take` has received, in their order.

        All updates of a request are there when `take` returns its result. They add up to the
        result; after an error they are what came before it.
        """
        return self._ledger.take_updates()

    # --- what is told -------------------------------------------------------------------------

    def figures(self) -> Figures:
        """What all actors have counted, those that died included."""
        return sum(self._figures.values(), Figures())

    def describe(self) -> dict[str, Any]:
        """The target and how it runs; `exactness`: the label that holds on all target actors."""
        told = {k: v for k, v in describe(self._targets).items() if k not in ("pid", "rank_pids")}
        num_drafts = len(self._drafts.members) if self._drafts else 0
        counts = {"target_actors": len(self._targets.members), "draft_actors": num_drafts}
        labels = [m.description["exactness"] for m in self._targets.ready if m.description]
        return {**told, **counts, **({"exactness": weakest(labels)} if labels else {})}

    def state(self) -> PoolState:
        """Its size and what it has counted so far."""
        return PoolState(
            figures=self.figures(),
            target_actors=len(self._targets.ready),
            draft_actors=len(self._drafts.ready) if self._drafts else 0,
            target_deaths=self._targets.num_deaths,
            draft_deaths=self._drafts.num_deaths if self._drafts else 0,
            target_died=self._targets.died,
            draft_died=self._drafts.died if self._drafts else 0.0,
            resumed=self._ledger.num_resumed,
            replayed=self._ledger.num_replayed,
            lack=self._targets.lack,
        )

    def ask_loads(self) -> "list[ObjectRef[Any]]":
        """Ask every target actor for its Load."""
        return [member.handle.load.remote() for member in self._targets.ready]

    def pids(self) -> dict[str, int]:
        """The actors' processes, by name."""
        ready = [*self._targets.ready, *(self._drafts.ready if self._drafts else ())]
        found = {}
        for member in ready:
            told = member.description or {}
            found[member.name] = told["pid"]
            for rank, pid in enumerate(told.get("rank_pids", ()), 1):
                found[f"{member.name}-rank-{rank}"] = pid
        return found

    def stop(self) -> None:
        """Stop all actors at once; what has not ended is dropped."""
        self._takes.clear()
        self._targets.stop()
        if self._drafts is not None:
            self._drafts.stop()

    # --- the actors ---------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        return QUEUE_FACTOR * self._config.batch_size

    def _look_after(self) -> None:
        """Collect results, notice deaths and births, choose the size, hand out what waits."""
        soon = PING_STREAMING_S if self._ledger.has_streams else PING_EVERY_S
        self._targets.ping_every_s = soon
        for name, death in self._targets.poll().dead.items():
            self._mourn(name, death)
        self._collect()
        self._relieve()
        self._scale()
        self._introduce()
        self.drafter.align()
        self._hand_out()

    def _hand_out(self) -> None:
        """Place waiting requests, and ask every actor for its results."""
        ready = {m.name: m for m in self._targets.ready}
        awake = [m.name for m in self._targets.awake] or list(ready)
        limits = dict.fromkeys(awake, self._limit)
        for name, placed in self._ledger.assign(limits, self._cold).items():
            ready[name].handle.submit.remote(placed)
        for name, member in ready.items():
            if name not in self._takes:
                self._takes[name] = member.handle.take.remote(LONG_POLL_S, self._together_s)

    def _relieve(self) -> None:
        """Streams on a stalled actor continue on others, if others answer."""
        if not self._targets.awake:
            return
        for member in self._targets.ready:
            tickets = self._ledger.hand_over(member.name) if member.stalled else []
            if tickets:
                log.warning("%s answers nothing: %d streams continue", member.name, len(tickets))
                member.handle.cancel.remote(tickets)

    def _introduce(self) -> None:
        """Tell every target which draft actors there are."""
        if self._drafts is None:
            return
        self._drafts.poll()
        handles = {m.name: m.handle for m in self._drafts.ready}
        for member in self._targets.ready:
            if self._met.get(member.name) != handles.keys():
                self._met[member.name] = frozenset(handles)
                member.handle.meet.remote(handles)

    def _wait(self, timeout_s: float) -> None:
        awaited = [*self._takes.values(), *self._targets.answers]
        if awaited:
            ray.wait(awaited, num_returns=1, timeout=timeout_s)

    def _collect(self) -> None:
        """Receive what the actors have handed over, and notice those that cannot any more."""
        waited = {ref: name for name, ref in self._takes.items()}
        done, _ = ray.wait(list(waited), num_returns=len(waited), timeout=0) if waited else ([], [])
        for ref in done:
            del self._takes[waited[ref]]
            death = self._receive(waited[ref], ref)
            if death is not None:
                self._targets.lose(waited[ref], death)
                self._mourn(waited[ref], death)

    def _receive(self, name: str, ref: "ObjectRef[Any]") -> Death | None:
        """Settle what an actor handed over; how it ended, if it did."""
        try:
            taken: Taken = ray.get(ref)
        except RayTaskError as error:  # its loop broke
            return _end(error.cause if isinstance(error.cause, Exception) else error)
        except RayError as error:
            return death_of(error)
        self._figures[name] = taken.figures
        (self._cold.discard if taken.shares else self._cold.add)(name)
        self._ledger.note(name, taken.streamed)
        first = self._ledger.settle(name, taken.ended)
        if any(result.finish_reason != "error" for result in first):
            self._targets.note_progress()
        if self._drafts is not None and any(_drafted(result) for result in first):
            self._drafts.note_progress()
        return None if taken.failure is None else _end(taken.failure)

    def _mourn(self, name: str, death: Death) -> None:
        """Run an actor's requests elsewhere, after what it handed over before it ended."""
        last = self._takes.pop(name, None)
        if last is not None and ray.wait([last], timeout=0)[0]:
            self._receive(name, last)
        lost = self._ledger.on(name)
        given_up = {result.id for result in self._ledger.lose(name, death)}
        for request in lost:
            what = "is given up" if request in given_up else "runs again elsewhere"
            log.info("a request of %s %s", name, what, extra={"request": request})

    def _scale(self) -> None:
        """More actors while requests queue up, fewer when they idle."""
        role, now = self._targets.role, time.monotonic()
        if role.min_size == role.max_size:
            return
        wanted = -(-self._ledger.num_running // self._limit)
        if wanted >= self._targets.size:
            self._busy = now
            self._targets.resize(wanted)
        elif now - self._busy > IDLE_S:
            self._targets.resize(wanted)
            self._retire()

    def _retire(self) -> None:
        """Stop idle actors above the size."""
        for member in self._targets.ready[self._targets.size :]:
            if self._ledger.load(member.name) == 0:
                self._takes.pop(member.name, None)
                self._targets.retire(member)


def _drafted(result: Result) -> bool:
    """Whether somebody has guessed for a request, other than its own prediction."""
    return result.draft_tokens > result.predicted + result.mispredicted


def _end(failure: Exception) -> Death:
    """What the failure of a token loop means; raises it if other actors would fail the same way."""
    if isinstance(failure, UnsupportedCheckpoint):
        raise failure
    if isinstance(failure, RankLost):
        return Death(str(failure), Evidence.DEATH)
    return Death(str(failure), Evidence.ERROR)

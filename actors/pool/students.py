"""Students in the place of a pool of targets: requests in, images' tokens out."""

import heapq
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from types import TracebackType
from typing import Any, Self

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from actors.messages import PoolState
from actors.pool.members import reason_of
from actors.pool.start import threads_of
from actors.student import Mix, StudentActor
from cluster.placement.placement import selector
from models.errors import InvalidRequest
from models.loop.figures import Figures
from models.loop.load import Load
from models.requests.request import Request, Result
from models.requests.spans import Spans
from models.requests.update import Update

QUEUE_FACTOR = 2  # batches on an actor at most: the next waits where the first runs
RETRIES = 3  # of a batch whose actor dies


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests on an actor, by its number."""

    actor: int
    requests: list[Request]
    placed: float = field(default_factory=time.perf_counter)


class StudentPool:
    """Actors that make images from classes and seeds.

    Ray starts an actor that dies again and repeats its batches, which gives the same images. A
    batch whose actor died too often ends with errors.
    """

    drafter = None  # images come without drafts

    def __init__(self, actors: list[Any], *, steps: int, batch_size: int) -> None:
        """Use `start`; or hand in handles of actors that have loaded."""
        self._actors, self._steps, self._batch_size = actors, steps, batch_size
        told = ray.get([actor.describe.remote() for actor in actors])
        self._pids: list[int] = [each.pop("pid") for each in told]
        self._description: dict[str, Any] = told[0]
        self._numbers = count()
        self._waiting: list[tuple[int, int, Request]] = []  # a heap by priority and arrival
        self._calls: dict[ObjectRef[Any], Batch] = {}
        self._open: set[str] = set()  # ids of requests whose results were not taken
        self._spans: dict[str, Spans] = {}  # by id, of requests that ask for a trace
        self._figures, self._deaths, self._died = Figures(), 0, 0.0

    @classmethod
    def start(
        cls,
        folder: str,
        *,
        steps: int,
        actors: int,
        batch_size: int,
        threads: int | None,
        num_cpus: float | None = None,
        mix: Mix | None = None,
    ) -> Self:
        """Create the actors and wait until they have loaded. Raises RayError if they cannot.

        `num_cpus`: torch threads of each actor, unless `threads` says otherwise; None: all cores of
        this machine, shared equally.
        """
        threads = threads_of(threads, num_cpus, actors)
        made: Any = ray.remote(StudentActor).options(
            max_restarts=-1, max_task_retries=RETRIES, label_selector=selector("target") or None
        )
        handles = [made.remote(folder, steps, threads, _name(i), mix) for i in range(actors)]
        return cls(handles, steps=steps, batch_size=batch_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in self._actors:
            ray.kill(actor)

    # --- requests -----------------------------------------------------------------------------

    @property
    def num_unfinished(self) -> int:
        """Requests whose result has not been taken."""
        return len(self._open)

    def free_slots(self) -> int:
        """How many more requests may be submitted without piling up."""
        return max(0, QUEUE_FACTOR * self._batch_size * len(self._actors) - len(self._open))

    def submit(self, requests: Iterable[Request]) -> None:
        """Queue all requests, or none: raises InvalidRequest if an id is in use already."""
        requests = list(requests)
        ids = [request.id for request in requests]
        if len(self._open.union(ids)) < len(self._open) + len(ids):
            raise InvalidRequest("ids of requests must differ")
        self._open.update(ids)
        for request in requests:
            if request.trace:
                self._spans[request.id] = Spans("pool")
                self._spans[request.id].wait()
            heapq.heappush(self._waiting, (request.priority, next(self._numbers), request))
        self._hand_out()

    def cancel(self, ids: Iterable[str]) -> None:
        """Forget requests; images that are being made are dropped."""
        self._open.difference_update(ids)
        self._spans = {name: spans for name, spans in self._spans.items() if name in self._open}
        self._waiting = [each for each in self._waiting if each[2].id in self._open]
        heapq.heapify(self._waiting)

    def take(self, timeout_s: float) -> list[Result]:
        """Results that have come in, after `timeout_s` at most."""
        calls = list(self._calls)
        done = ray.wait(calls, num_returns=1, timeout=timeout_s)[0] if calls else []
        results = [result for call in done for result in self._received(call)]
        self._hand_out()
        self._open.difference_update(result.id for result in results)
        return results

    def take_updates(self) -> list[Update]:
        """None: all tokens of an image come with its result."""
        return []

    def _hand_out(self) -> None:
        """Put waiting requests on the least loaded actors, in batches of equal steps."""
        while self._waiting:
            loads = [0] * len(self._actors)
            for batch in self._calls.values():
                loads[batch.actor] += 1
            least = min(loads)
            if least >= QUEUE_FACTOR:
                return
            requests = self._next_batch()
            actor = loads.index(least)
            call = self._actors[actor].run.remote(requests)
            self._calls[call] = Batch(actor, requests)

    def _next_batch(self) -> list[Request]:
        batch: list[Request] = []
        while self._waiting and len(batch) < self._batch_size:
            if batch and self._waiting[0][2].steps != batch[0].steps:
                break
            batch.append(heapq.heappop(self._waiting)[2])
        for request in batch:
            if request.id in self._spans:
                self._spans[request.id].proceed()
        return batch

    def _received(self, call: "ObjectRef[Any]") -> list[Result]:
        """The results of a batch, without those of cancelled requests."""
        batch = self._calls.pop(call)
        try:
            pid, results = ray.get(call)
        except RayError as error:
            failed = [_failed(r, error) for r in batch.requests if r.id in self._open]
            return [self._traced(result, batch) for result in failed]
        if pid != self._pids[batch.actor]:
            self._deaths, self._died = self._deaths + 1, time.time()
        self._pids[batch.actor] = pid
        steps = batch.requests[0].steps or self._steps
        for result in results:
            self._figures += Figures(rounds=steps, round_rows=steps, tokens=len(result.tokens))
        return [self._traced(r, batch) for r in results if r.id in self._open]

    def _traced(self, result: Result, batch: Batch) -> Result:
        """A result with what was noted here, if it asked for a trace."""
        spans = self._spans.pop(result.id, None)
        if spans is None:
            return result
        facts = {"actor": _name(batch.actor), "end": result.error or result.finish_reason}
        spans.add("on an actor", batch.placed, time.perf_counter(), facts)
        return replace(result, spans=(*spans.found, *result.spans))

    # --- what is told -------------------------------------------------------------------------

    def figures(self) -> Figures:
        """Counts of all actors; an image is a request of as many rounds as it had steps."""
        return self._figures

    def describe(self) -> dict[str, Any]:
        """Facts about the student."""
        return self._description

    def state(self) -> PoolState:
        """Its size and what it has counted so far."""
        return PoolState(
            figures=self._figures,
            target_actors=len(self._actors),
            draft_actors=0,
            target_deaths=self._deaths,
            target_died=self._died,
        )

    def ask_loads(self) -> list[Awaitable[Load]]:
        """What runs on each actor."""
        running = [0] * len(self._actors)
        for batch in self._calls.values():
            running[batch.actor] += sum(request.id in self._open for request in batch.requests)
        return [_told(Load(running=each)) for each in running]

    def pids(self) -> dict[str, int]:
        """The actors' processes, by name."""
        return {_name(i): pid for i, pid in enumerate(self._pids)}


def _name(number: int) -> str:
    return f"student-{number}"


async def _told(load: Load) -> Load:
    return load


def _failed(request: Request, error: RayError) -> Result:
    return Result(
        id=request.id,
        tokens=(),
        finish_reason="error",
        error=f"the student failed: {reason_of(error)}",
        retryable=not isinstance(error, RayTaskError),
    )

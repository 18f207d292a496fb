"""The one owner of a pool that serves: requests in from ingresses, new tokens and results out.

An actor with an event loop; the pool, which is not thread-safe, runs on a thread of its own. Each
ingress has an inbox that it empties by a long poll (`take`), so that a step costs one message for
each ingress, however many requests it serves. The requests of an ingress that has died are
cancelled: Ray tells that its process has ended, or it has stopped polling.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ray.exceptions import RayError, RayTaskError

from actors.errors import PoolFailed
from actors.manager.inbox import LEASE_S, Inbox
from actors.manager.recorder import Recorder
from actors.manager.served import ServedPool
from actors.messages import Learning, Measured, News, Row
from actors.tally import Tally
from cluster import logs
from models.errors import InvalidOption
from models.requests.request import Request, Result
from models.requests.update import Update

FORGOTTEN_S = 60.0  # without a call of `take`, after which nothing is kept for an ingress
BUSY_S = 0.02  # that commands wait at most while requests run but report nothing
LOAD_S = 0.5  # that a target actor may take to tell its load
IDLE_S = 1.0  # between two looks at the actors while nothing runs
CLOSED_S = 0.1  # that an ingress waits for news at most after `close`: `left` is as old

log = logging.getLogger(__name__)
Told = TypeVar("Told")
Said = TypeVar("Said")


class Manager:
    """Owns a pool of targets or students. Request ids must differ between ingresses, too."""

    def __init__(
        self,
        *,
        max_unfinished: int,
        model: str = "",
        records: bool = False,
    ) -> None:
        """`max_unfinished`: requests that may run or wait; more are turned away.

        `model`: its name, for logs. `records`: keep answers for a trainer, which alone changes
        the drafter then.
        """
        self._id = uuid.uuid4().hex
        self.fingerprint = ""  # of its answers; requests for others are refused, if it is told
        logs.set_up(f"manager of {model}")
        self._max_unfinished = max_unfinished
        self._inboxes: dict[str, Inbox] = {}
        self._owners: dict[str, str] = {}  # ingress by request
        self._commands: queue.SimpleQueue[Callable[[ServedPool], None]] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._closed = False
        self._lack: str | None = None
        self._description: dict[str, Any] | None = None
        self._tally = Tally()
        self._recorder = Recorder() if records else None
        self._learning = Learning()

    async def start(self, start_pool: Callable[[], ServedPool]) -> dict[str, Any]:
        """Start the pool and wait until it is ready.

        Raises what `start_pool` raises.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        arguments = (start_pool, loop, ready)
        threading.Thread(target=self._run, args=arguments, daemon=True, name="pool").start()
        self._description = await ready
        return self._description

    async def describe(self) -> dict[str, Any]:
        """The target and how it runs.

        Raises the pool's failure, or PoolFailed before it is up and after `close`.
        """
        self._check_open()
        if self._description is None:
            raise PoolFailed("the target is still loading")
        return self._description

    async def ready(self) -> None:
        """Raises what `submit` would."""
        await self.describe()
        self._check_target()

    async def measured(self) -> Measured:
        """All that is counted. Raises the pool's failure."""
        self._check()
        state, asked = await self._of_pool(lambda pool: (pool.state(), pool.ask_loads()))
        loads = []
        for answer in asked:
            with contextlib.suppress(RayError, TimeoutError):  # it dies, or is stalled
                loads.append(await asyncio.wait_for(answer, LOAD_S))
        return Measured(
            counts=self._tally.counts,
            pool=state,
            loads=tuple(loads),
            queued=len(self._owners),
            learning=self._learning,
        )

    async def counts(self) -> dict[str, int]:
        """Requests that have not ended, and the pool's processes by name. Raises its failure."""
        self._check()
        return await self._of_pool(lambda pool: {"unfinished": pool.num_unfinished, **pool.pids()})

    async def change_drafter(self, drafter: str) -> None:
        """Draft with another drafter from now on, in requests that run, too; no token changes.

        Raises what offering it raises, and what an actor raises that cannot change to it
        (InvalidOption, UnsupportedCheckpoint); all go on as before then. An actor that dies
        meanwhile does not count: its successor begins with the drafter that was kept.
        """
        if self._recorder is not None:
            told = "none: the server learns (--learn), and its trainer changes the drafter"
            raise InvalidOption("drafter", drafter, told)
        await self._change_drafter(drafter)

    async def _change_drafter(self, drafter: str) -> None:
        self._check()

        def offer(pool: ServedPool) -> list[Any]:
            if pool.drafter is None:
                raise InvalidOption("drafter", drafter, "none: a student has no drafts")
            return pool.drafter.offer(drafter)

        def settle(pool: ServedPool, *, keep: bool) -> None:
            if pool.drafter is not None:
                pool.drafter.settle(keep=keep)

        calls = await self._of_pool(offer)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [each for each in answers if isinstance(each, RayTaskError)]
        await self._of_pool(partial(settle, keep=not refused))
        if refused:
            raise refused[0].cause or refused[0]

    # --- for a trainer ------------------------------------------------------------------------

    async def take_rows(self) -> tuple[Row, ...]:
        """The answers since the last call, of requests that may be recorded."""
        self._check()
        return () if self._recorder is None else self._recorder.take()

    async def use_learned(self, drafter: str) -> None:
        """As `change_drafter`."""
        await self._change_drafter(drafter)

    async def stop_recording(self) -> None:
        """Nothing learns any more: what waits is forgotten, and anyone may change the drafter."""
        self._recorder = None

    async def learned(self, learning: Learning) -> None:
        """How far the training is, for `measured`."""
        self._learning = learning

    # --- the end ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Take no more requests; those that run or wait go on."""
        self._closed = True
        for inbox in self._inboxes.values():
            inbox.filled.set()

    async def left(self) -> int:
        """Completions that live ingresses have not sent in full. Raises the pool's failure."""
        self._check()
        return sum(inbox.left for inbox in self._inboxes.values())

    async def _of_pool(self, ask: Callable[[ServedPool], Told]) -> Told:
        """What a function of the pool returns, called on its thread; what it raises is raised here.

        Requests that run do not end by it.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Told] = loop.create_future()

        def answer(pool: ServedPool) -> None:
            try:
                _tell(loop, told.set_result, told, ask(pool))
            except Exception as error:  # whatever a caller has caused is for it
                _tell(loop, told.set_exception, told, error)

        self._commands.put(answer)
        return await told

    # --- for ingresses ------------------------------------------------------------------------

    async def meet(self, ingress: str, actor: Any) -> None:
        """The actor that an ingress runs in: when that dies, its requests are cancelled."""
        self._inbox(ingress).actor = actor

    async def submit(
        self, ingress: str, requests: list[Request], fingerprint: str = "", again: bool = False
    ) -> str | None:
        """Queue all requests, or none: which manager has them; None if they are too many now.

        `again`: another manager has had them, and an answer may have begun: they are not too many.

        Raises the pool's failure, or PoolFailed after `close`, while no target starts soon, and if
        the answers would not be those of the server with this fingerprint.
        """
        self._check_open()
        self._check_target()
        if fingerprint and self.fingerprint and fingerprint != self.fingerprint:
            told = f"the server changes from {fingerprint} to {self.fingerprint}"
            raise PoolFailed(f"{told}: its answers are other ones")
        requests = [each for each in requests if each.id not in self._owners]
        if not again and len(self._owners) + len(requests) > self._max_unfinished:
            self._tally.rejected(requests)
            return None
        self._tally.began(requests)
        if self._recorder is not None:
            self._recorder.began(requests)
        self._inbox(ingress).open.update(request.id for request in requests)
        self._owners.update((request.id, ingress) for request in requests)
        self._commands.put(lambda pool: pool.submit(requests))
        return self._id

    async def cancel(self, ingress: str, ids: list[str]) -> None:
        """Drop requests of this ingress; those that have ended are passed over."""
        mine = [each for each in ids if self._owners.get(each) == ingress]
        self._tally.cancelled(mine)
        if self._recorder is not None:
            self._recorder.cancelled(mine)
        self._forget(mine)
        if mine:
            self._commands.put(lambda pool: pool.cancel(mine))

    async def take(self, ingress: str, timeout_s: float, unsent: int = 0) -> News:
        """What has come for an ingress; waits up to `timeout_s` (below LEASE_S) for the first.

        `unsent`: completions of calls whose last byte the ingress has not sent.
        """
        inbox = self._inbox(ingress)
        inbox.unsent = unsent
        if self._closed:
            timeout_s = min(timeout_s, CLOSED_S)
        try:
            async with asyncio.timeout(timeout_s):
                await inbox.filled.wait()
        except TimeoutError:
            pass
        inbox.seen = time.monotonic()
        inbox.unsent = max(inbox.unsent, len(inbox.results))  # until the next call tells
        updates, results = tuple(inbox.updates), tuple(inbox.results)
        news = News(manager=self._id, updates=updates, results=results)
        inbox.updates.clear()
        inbox.results.clear()
        inbox.filled.clear()
        return news

    # --- on the event loop --------------------------------------------------------------------

    def _inbox(self, ingress: str) -> Inbox:
        inbox = self._inboxes.setdefault(ingress, Inbox())
        inbox.seen = time.monotonic()
        return inbox

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _check_open(self) -> None:
        self._check()
        if self._closed:
            raise PoolFailed("the server stops, and takes no more requests")

    def _check_target(self) -> None:
        if self._lack is not None:
            raise PoolFailed(self._lack)

    def _note(self, lack: str | None) -> None:
        self._lack = lack

    def _forget(self, ids: list[str]) -> None:
        for each in ids:
            inbox = self._inboxes[self._owners.pop(each)]
            inbox.open.discard(each)
            inbox.updates = [update for update in inbox.updates if update.id != each]

    def _deliver(self, updates: list[Update], results: list[Result]) -> None:
        """Sort what a step brought into the inboxes; what was cancelled meanwhile is dropped."""
        for update in updates:
            if update.id in self._owners:
                self._tally.grew(update)
                inbox = self._inboxes[self._owners[update.id]]
                inbox.updates.append(update)
                inbox.filled.set()
        for result in results:
            if result.id in self._owners:
                self._tally.ended(result)
                if self._recorder is not None:
                    self._recorder.ended(result)
                inbox = self._inboxes[self._owners.pop(result.id)]
                inbox.open.discard(result.id)
                inbox.results.append(result)
                inbox.filled.set()

    def _expire(self) -> None:
        """Cancel the requests of dead and silent ingresses; one that asks again is told."""
        for name, inbox in list(self._inboxes.items()):
            silent_s, is_dead = time.monotonic() - inbox.seen, inbox.is_dead()
            if inbox.open and is_dead:
                self._give_up(list(inbox.open), "the ingress's process died")
            elif inbox.open and silent_s > LEASE_S:
                told = f"the ingress asked for nothing for {LEASE_S:.0f} s"
                self._give_up(list(inbox.open), told)
            if is_dead or silent_s > FORGOTTEN_S:
                del self._inboxes[name]

    def _give_up(self, ids: list[str], told: str) -> None:
        log.warning("%d requests are cancelled: %s", len(ids), told)
        self._deliver([], [_failed(each, told) for each in ids])
        self._commands.put(lambda pool: pool.cancel(ids))

    def _fail(self, error: Exception) -> None:
        """The pool has ended: so has every request."""
        self._failure = error
        told = f"the pool of targets failed: {error}"
        self._deliver([], [_failed(each, told) for each in list(self._owners)])

    # --- on the pool's thread -----------------------------------------------------------------

    def _run(
        self,
        start_pool: Callable[[], ServedPool],
        loop: asyncio.AbstractEventLoop,
        ready: "asyncio.Future[dict[str, Any]]",
    ) -> None:
        try:
            pool = start_pool()
        except Exception as error:
            loop.call_soon_threadsafe(ready.set_exception, error)
            return
        loop.call_soon_threadsafe(ready.set_result, pool.describe())
        try:
            with pool:
                self._serve(pool, loop)
        except Exception as error:  # whatever it is, no request can go on
            loop.call_soon_threadsafe(self._fail, error)

    def _serve(self, pool: ServedPool, loop: asyncio.AbstractEventLoop) -> None:
        expired = time.monotonic()
        while True:
            self._obey(pool)
            results = pool.take(timeout_s=BUSY_S)
            updates = pool.take_updates()
            if updates or results:
                loop.call_soon_threadsafe(self._deliver, updates, results)
            if time.monotonic() - expired > IDLE_S:
                expired = time.monotonic()
                loop.call_soon_threadsafe(self._expire)
                loop.call_soon_threadsafe(self._note, pool.state().lack)

    def _obey(self, pool: ServedPool) -> None:
        """Carry out what was asked; sleep for a while if there is nothing to do."""
        try:
            command = self._commands.get(timeout=0 if pool.num_unfinished else IDLE_S)
            while True:
                command(pool)
                command = self._commands.get_nowait()
        except queue.Empty:
            return


def _tell(
    loop: asyncio.AbstractEventLoop,
    tell: Callable[[Said], None],
    told: "asyncio.Future[Any]",
    said: Said,
) -> None:
    """`tell` an asker, from the pool's thread; the asker may have gone."""

    def settle() -> None:
        if not told.done():
            tell(said)

    loop.call_soon_threadsafe(settle)


def _failed(request_id: str, told: str) -> Result:
    return Result(id=request_id, tokens=(), finish_reason="error", error=told, retryable=True)

"""An ingress's side of the manager: requests out, and what comes back sorted by call.

One long poll brings the news of all requests of this ingress. Where another manager takes the place
of one that ended, it is given the rest of each request: with one seed there is one answer. While
both are there, only the newer one is listened to.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from actors.messages import News
from actors.pool.requests.so_far import SoFar
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import Request, Result
from models.requests.update import Update
from pipelines.serve.api_error import ApiError, overloaded, too_late, unavailable
from pipelines.serve.bodies.plan import Bounds
from pipelines.serve.door.limits import Clients

POLL_S = 1.0
RETRY_S = 1.0
WATCH_S = 0.1  # between two looks whether the client is still there
MOST_MANAGERS = 4  # that a request is handed to, one after the other: it may be what ends them

log = logging.getLogger(__name__)
Item = tuple[int, Update | Result]
Gone = Callable[[], Awaitable[bool]]


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Exchange:
    """`name`: of this ingress; no other has it. `clients`: what each one has of it.

    `actor`: that this ingress runs in, if it is one. `patience_s`: how long requests wait for a
    manager that is replaced; 0: no one does.
    """

    def __init__(
        self,
        manager: Any,
        name: str,
        clients: Clients | None = None,
        *,
        actor: Any = None,
        patience_s: float = 0.0,
    ) -> None:
        self.manager, self.name, self._actor = manager, name, actor
        self._patience_s = patience_s
        self._managers: list[str] = []  # in the order in which they answered; the last one is there
        self.clients = clients or Clients()
        self._calls: dict[str, tuple[Call, int]] = {}  # by request
        self._tasks: set[asyncio.Future[Any]] = set()
        self._polling = False
        self._told: Mapping[str, Any] | None = None

    async def told(self) -> Mapping[str, Any]:
        """How the manager describes the target. Raises ApiError (503) while it loads."""
        if self._told is None:
            self._told = await self.ask(self.manager.describe.remote())
        return self._told

    def ask_anew(self) -> None:
        """What was told may hold no more: another manager may be there."""
        self._told = None

    async def bounds(self) -> Bounds:
        """Of the target. Raises ApiError (503) while it loads."""
        told = await self.told()
        return Bounds(max_length=told["max_length"], vocabulary=told["vocabulary"])

    def call(
        self,
        requests: Sequence[Request],
        gone: Gone,
        client: str = "",
        fingerprint: str = "",
        deadline: float | None = None,
    ) -> "Call":
        """The requests of one HTTP request, to be run as a context; `gone`: has the client left.

        `fingerprint`: of the answer that the client expects. `deadline`: when they are stopped, by
        the event loop's clock.
        """
        return Call(self, requests, gone, client, fingerprint, deadline)

    async def ask(self, answer: "Awaitable[Any]") -> Any:
        """What a call of the manager returns. Raises ApiError (503) if it cannot in time."""
        try:
            async with asyncio.timeout(self._patience_s or None):
                return await answer
        except TimeoutError as error:
            raise unavailable(f"nothing answers for {self._patience_s:g} s") from error
        except Exception as error:  # Ray's own, or the pool's failure
            raise unavailable(_reason(error)) from error

    async def change_drafter(self, drafter: str) -> None:
        """Raises ApiError: the model cannot draft with it (400), or does not answer (503)."""
        try:
            await self.manager.change_drafter.remote(drafter)
        except Exception as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, InvalidOption | UnsupportedCheckpoint):
                raise ApiError(str(cause), param="drafter", code="invalid_value") from error
            raise unavailable(_reason(error)) from error

    def attach(self, call: "Call") -> None:
        """From now on the call gets what comes for its requests."""
        for index, request in enumerate(call.requests):
            self._calls[request.id] = (call, index)
        if not self._polling:
            self._polling = True
            self.background(self._poll())

    def detach(self, call: "Call") -> None:
        """The call has ended: all was sent, or nobody waits for it."""
        for request in call.requests:
            self._calls.pop(request.id, None)

    def background(self, work: "Awaitable[Any]") -> None:
        """Run something whose end nobody waits for."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def is_past(self, manager: str) -> bool:
        """Whether another manager has taken the place of this one."""
        return manager in self._managers[:-1]

    async def _poll(self) -> None:
        failure: ApiError | None = None  # that `unheard` have not been told
        unheard: set[Call] = set()  # those that ran when a message may have been lost
        heard = time.monotonic()
        while True:
            try:
                news = await self._take()
                if self.is_past(news.manager):
                    continue  # it still runs what another one has been given
                if failure is not None and news.manager in self._managers:
                    _lose(unheard, failure)  # it lives: what it told meanwhile is lost
                failure = None
                unheard.clear()
                self._sort(news)
                if news.manager not in self._managers:
                    await self._meet(news.manager)
            except Exception as error:  # Ray's own, Ray Serve's, or the pool's failure
                failure = unavailable(_reason(error))
                unheard |= self._running()
                log.warning("the manager does not answer: %s", _reason(error))
                if time.monotonic() - heard >= self._patience_s:
                    _lose(unheard, failure)
                    failure = None
                    unheard.clear()
                await asyncio.sleep(RETRY_S)
                continue
            heard = time.monotonic()

    def _running(self) -> "set[Call]":
        return {call for call, _ in self._calls.values()}

    def _sort(self, news: News) -> None:
        items: list[Update | Result] = [*news.updates, *news.results]
        for item in items:
            if item.id in self._calls:
                call, index = self._calls[item.id]
                if call.expects(item.id, news.manager):
                    call.put((index, item))

    async def _take(self) -> News:
        """Raises TimeoutError where it is longer away than a manager that is replaced."""
        async with asyncio.timeout(POLL_S + self._patience_s if self._patience_s else None):
            news: News = await self.manager.take.remote(self.name, POLL_S, len(self._calls))
            return news

    async def _meet(self, manager: str) -> None:
        """One that has not answered before: it has to know of this ingress, and what it wants."""
        if self._actor is not None:
            await self.manager.meet.remote(self.name, self._actor)
        self._managers.append(manager)
        self.ask_anew()
        for call in self._running():
            call.hand_to(manager)


class Call:
    """`async with exchange.call(requests, gone) as call: async for items in call.news()`.

    Requests that have not ended when the context ends are cancelled, however it ends; and as soon
    as `gone`, which is asked now and then, says that the client has gone.
    """

    def __init__(
        self,
        exchange: Exchange,
        requests: Sequence[Request],
        gone: Gone,
        client: str,
        fingerprint: str,
        deadline: float | None,
    ) -> None:
        self.requests, self.fingerprint, self._client = tuple(requests), fingerprint, client
        self._deadline = deadline
        self._so_far = {request.id: SoFar(request) for request in requests}  # those that run
        self._manager: str | None = None  # that has them
        self._handed = 0  # to managers, so far
        self._submitted: asyncio.Future[Any] | None = None
        self._exchange, self._gone = exchange, gone
        self._queue: asyncio.Queue[Item | ApiError | None] = asyncio.Queue()
        self._open = len(self.requests)
        self._watching: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._holds = 0

    def put(self, item: Item | ApiError | None) -> None:
        """None: the client has gone."""
        if isinstance(item, tuple):
            _, news = item
            if isinstance(news, Result):
                self._so_far.pop(news.id, None)
            elif news.id in self._so_far:
                self._so_far[news.id].note(news)
        self._queue.put_nowait(item)

    def expects(self, request_id: str, manager: str) -> bool:
        """Whether this manager has the request, and its result has not come."""
        return request_id in self._so_far and self._manager in (None, manager)

    async def __aenter__(self) -> Self:
        """Raises ApiError: the queue is full, the client has its share, or nothing can run."""
        exchange = self._exchange
        exchange.clients.hold(self._client, len(self.requests))
        self._holds = len(self.requests)
        exchange.attach(self)
        try:
            await self._submit()
        except BaseException:
            exchange.detach(self)
            self._let_go()
            exchange.background(self._cancel())
            raise
        if self._deadline is not None:
            late = too_late(exchange.clients.limits.seconds)
            self._timer = asyncio.get_running_loop().call_at(self._deadline, self.put, late)
        self._watching = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._drop()
        self._let_go()

    def _let_go(self) -> None:
        self._exchange.clients.let_go(self._client, self._holds)
        self._holds = 0

    async def news(self) -> AsyncIterator[list[Item]]:
        """All that has come since the last items, until every request has ended.

        Raises ApiError, or ClientLeft once the client has gone.
        """
        while self._open:
            items = [await self._queue.get()]
            while not self._queue.empty():
                items.append(self._queue.get_nowait())
            if None in items:
                raise ClientLeft
            yield [self._checked(item) for item in items]

    @property
    def runs(self) -> bool:
        """Whether results are still to come, and somebody waits for them."""
        return bool(self._open and self._so_far)

    def hand_to(self, manager: str) -> None:
        """Give what is left to run to the manager that is there now, unless it has it."""
        if self.runs and self._manager not in (None, manager):
            self._hand_on()

    def _hand_on(self) -> None:
        self._manager = None
        self._exchange.background(self._again())

    async def _again(self) -> None:
        if not self.runs:
            return
        try:
            await self._submit()
        except ApiError as error:
            if self.runs:
                self.put(error)

    async def _submit(self) -> None:
        """Raises ApiError: the queue is full, or nothing can run."""
        exchange, rest = self._exchange, [each.rest() for each in self._so_far.values()]
        if self._handed == MOST_MANAGERS:
            raise unavailable(f"{MOST_MANAGERS} owners of its targets ended while this request ran")
        again, self._handed = self._handed > 0, self._handed + 1
        submit = exchange.manager.submit.remote(exchange.name, rest, self.fingerprint, again)
        self._submitted = asyncio.ensure_future(exchange.ask(submit))
        try:
            self._manager = await asyncio.shield(self._submitted)
        except ApiError:
            exchange.ask_anew()
            raise
        if self._manager is None:
            raise overloaded()
        if self.runs and exchange.is_past(self._manager):
            self._handed -= 1  # one that is leaving took it
            await asyncio.sleep(RETRY_S)
            if self.runs:
                self._hand_on()

    def _checked(self, item: Item | ApiError | None) -> Item:
        if isinstance(item, ApiError):
            raise item
        assert item is not None, "the iteration has ended"
        self._open -= isinstance(item[1], Result)
        return item

    async def _watch(self) -> None:
        while not await self._gone():
            await asyncio.sleep(WATCH_S)
        self.put(None)
        self._drop()

    def _drop(self) -> None:
        """Nothing that comes from now on is for anyone."""
        self._exchange.detach(self)
        if self._open:
            self._open = 0
            self._exchange.background(self._cancel())

    async def _cancel(self) -> None:
        if self._submitted is not None:  # else the requests could come after they are cancelled
            with contextlib.suppress(ApiError):
                await asyncio.shield(self._submitted)
        ids = [request.id for request in self.requests]
        with contextlib.suppress(Exception):  # a manager that is gone runs nothing
            await self._exchange.manager.cancel.remote(self._exchange.name, ids)


def _lose(calls: "set[Call]", error: ApiError) -> None:
    for call in calls:
        if call.runs:
            call.put(error)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__

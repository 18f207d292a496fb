"""An ingress's side of the manager: requests out, and what comes back sorted by call.

One long poll brings the news of all requests of this ingress.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import Request, Result
from models.requests.update import Update
from pipelines.serve.api_error import ApiError, overloaded, too_late, unavailable
from pipelines.serve.bodies.plan import Bounds
from pipelines.serve.limits import Clients

POLL_S = 1.0
RETRY_S = 1.0
WATCH_S = 0.1  # between two looks whether the client is still there

log = logging.getLogger(__name__)
Item = tuple[int, Update | Result]
Gone = Callable[[], Awaitable[bool]]


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Exchange:
    """`name`: of this ingress; no other has it. `clients`: what each one has of it.

    `actor`: that this ingress runs in, if it is one.
    """

    def __init__(
        self, manager: Any, name: str, clients: Clients | None = None, actor: Any = None
    ) -> None:
        self.manager, self.name, self._actor = manager, name, actor
        self.clients = clients or Clients()
        self._calls: dict[str, tuple[Call, int]] = {}  # by request
        self._tasks: set[asyncio.Future[Any]] = set()
        self._polling = False
        self._bounds: Bounds | None = None

    async def bounds(self) -> Bounds:
        """Of the target. Raises ApiError (503) while it loads."""
        if self._bounds is None:
            told = await self.ask(self.manager.describe.remote())
            self._bounds = Bounds(max_length=told["max_length"], vocabulary=told["vocabulary"])
        return self._bounds

    def call(self, requests: Sequence[Request], gone: Gone, client: str = "") -> "Call":
        """The requests of one HTTP request, to be run as a context; `gone`: has the client left."""
        return Call(self, requests, gone, client)

    async def ask(self, answer: "Awaitable[Any]") -> Any:
        """What a call of the manager returns. Raises ApiError (503) if it cannot."""
        try:
            return await answer
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

    async def _poll(self) -> None:
        is_known = self._actor is None
        while True:
            try:
                if not is_known:
                    await self.manager.meet.remote(self.name, self._actor)
                    is_known = True
                take = self.manager.take
                news = await take.remote(self.name, POLL_S, len(self._calls))
            except Exception as error:  # Ray's own, Ray Serve's, or the pool's failure
                log.warning("the manager does not answer: %s", _reason(error))
                self._lose(unavailable(_reason(error)))
                is_known = self._actor is None  # it may be another manager that answers next
                await asyncio.sleep(RETRY_S)
                continue
            for item in (*news.updates, *news.results):
                call, index = self._calls.get(item.id, (None, 0))
                if call is not None:
                    call.put((index, item))

    def _lose(self, error: ApiError) -> None:
        for call in {call for call, _ in self._calls.values()}:
            call.put(error)


class Call:
    """`async with exchange.call(requests, gone) as call: async for items in call.news()`.

    Requests that have not ended when the context ends are cancelled, however it ends; and as soon
    as `gone`, which is asked now and then, says that the client has gone.
    """

    def __init__(
        self, exchange: Exchange, requests: Sequence[Request], gone: Gone, client: str
    ) -> None:
        self.requests, self._client = tuple(requests), client
        self._exchange, self._gone = exchange, gone
        self._queue: asyncio.Queue[Item | ApiError | None] = asyncio.Queue()
        self._open = len(self.requests)
        self._watching: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._holds = 0

    def put(self, item: Item | ApiError | None) -> None:
        """None: the client has gone."""
        self._queue.put_nowait(item)

    async def __aenter__(self) -> Self:
        """Raises ApiError: the queue is full, the client has its share, or nothing can run."""
        exchange = self._exchange
        exchange.clients.hold(self._client, len(self.requests))
        self._holds = len(self.requests)
        exchange.attach(self)
        submit = exchange.manager.submit.remote(exchange.name, list(self.requests))
        submitted = asyncio.ensure_future(exchange.ask(submit))
        try:
            if not await asyncio.shield(submitted):
                raise overloaded()
        except BaseException:
            exchange.detach(self)
            self._let_go()
            exchange.background(self._cancel(submitted))
            raise
        seconds = exchange.clients.limits.seconds
        if seconds:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self.put, too_late(seconds))
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
        if self._deadline is not None:
            self._deadline.cancel()
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

    async def _cancel(self, after: "asyncio.Future[Any] | None" = None) -> None:
        if after is not None:  # else the requests could reach the manager after they are cancelled
            with contextlib.suppress(ApiError):
                await after
        ids = [request.id for request in self.requests]
        with contextlib.suppress(Exception):  # a manager that is gone runs nothing
            await self._exchange.manager.cancel.remote(self._exchange.name, ids)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__

"""Answers as HTTP has them, without a server: when a call ends, and where a stream goes on."""

import asyncio
from typing import Any

import pytest

from actors.pool.manager import Manager
from models.requests.request import Result
from pipelines.serve.exchange import Exchange
from pipelines.serve.streams import Stream, whole
from tests.actors.conftest import make_requests
from tests.pipelines.serve.local import Handle


async def stays() -> bool:
    return False


@pytest.mark.parametrize("streamed", [False, True])
def test_a_completion_is_left_until_its_last_byte_is_sent(streamed: bool) -> None:
    left: list[int] = []

    async def run() -> None:
        manager = Manager(max_unfinished=4)
        exchange = Exchange(Handle(manager), "a")
        call = exchange.call(make_requests(1), stays)
        await call.__aenter__()
        manager._deliver([], [Result(id="r0", tokens=(1,), finish_reason="length")])
        await manager.close()

        async def taken() -> dict[str, Any]:
            async for _ in call.news():
                pass
            for _ in range(10):  # the ingress asks for news again
                await asyncio.sleep(0)
            return {}

        async def events() -> Any:
            yield str(await taken()).encode()

        async def send(message: Any) -> None:
            left.append(await manager.left())

        made = Stream(call, events(), headers={}) if streamed else None
        made = made or await whole(call, taken(), headers={})
        await made({"type": "http", "asgi": {"spec_version": "2.4"}}, stays, send)
        while await manager.left():
            await asyncio.sleep(0)
        for task in exchange._tasks:
            task.cancel()

    asyncio.run(run())
    assert left
    assert all(left)


def test_the_call_ends_when_the_answer_fails() -> None:
    async def run() -> None:
        exchange = Exchange(Handle(Manager(max_unfinished=4)), "a")
        call = exchange.call(make_requests(1), stays)
        await call.__aenter__()

        async def fail() -> dict[str, Any]:
            raise KeyError

        with pytest.raises(KeyError):
            await whole(call, fail(), headers={})
        assert not exchange._calls
        for task in exchange._tasks:
            task.cancel()

    asyncio.run(run())

"""Another manager takes the place of one that ended: it is given the rest of what runs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from actors.manager.manager import Manager
from models.requests.request import Result
from models.requests.update import Update
from pipelines.serve.api_error import ApiError
from pipelines.serve.generation import exchange as exchanging
from pipelines.serve.generation.exchange import Call, Exchange
from tests.actors.conftest import make_requests
from tests.actors.test_manager import Pool, obeyed
from tests.pipelines.serve.local import Handle
from tests.pipelines.serve.test_streams import stays

PATIENCE_S = 60.0
REQUESTS = [replace(each, stream=True) for each in make_requests(2)]


class Gone:
    """A manager whose process has ended."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*arguments: Any) -> None:
            raise ConnectionError("it died")

        return fail


def update(position: int) -> Update:
    at = range(position, position + 1)
    return Update(id="r0", positions=at, tokens=(7 + position,), sources=("target",), text="a")


def told(items: list[Any]) -> list[str]:
    return [item.id for _, item in items]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanges ask often."""
    monkeypatch.setattr(exchanging, "POLL_S", 0.02)
    monkeypatch.setattr(exchanging, "RETRY_S", 0.02)


def run(test: Callable[[Handle, Exchange, Call], Awaitable[None]], patience_s: float) -> None:
    """A test of a call that has begun, and of which r1 has ended."""

    async def whole() -> None:
        first = next_manager()
        handle = Handle(first)
        exchange = Exchange(handle, "a", patience_s=patience_s)
        async with exchange.call(REQUESTS, stays, fingerprint="fp") as call:
            end = Result(id="r1", tokens=(1,), finish_reason="length")
            first._deliver([update(0), update(1)], [end])
            assert told(await anext(call.news())) == ["r0", "r0", "r1"]
            await test(handle, exchange, call)
        for task in exchange._tasks:
            task.cancel()

    asyncio.run(whole())


def next_manager(fingerprint: str = "fp") -> Manager:
    made = Manager(max_unfinished=4)
    made.fingerprint = fingerprint
    return made


@pytest.mark.parametrize("dies", [False, True])
def test_it_goes_on_with_what_is_left(dies: bool) -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        if dies:
            handle._manager = Gone()
            await asyncio.sleep(0.1)
        handle._manager = second = next_manager()
        await until(lambda: "r0" in second._owners)
        given: list[Any] = []

        class Noting(Pool):
            def submit(self, requests: Any) -> None:
                given.extend(requests)

        while not second._commands.empty():
            second._commands.get_nowait()(Noting())
        assert [(each.id, each.generated) for each in given] == [("r0", (7, 8))]
        second._deliver([update(2)], [Result(id="r0", tokens=(7, 8, 9), finish_reason="length")])
        found = [item async for items in call.news() for item in items]
        assert told(found) == ["r0", "r0"]
        assert not second._owners

    run(test, PATIENCE_S)


def test_one_that_knows_a_request_runs_it_once() -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        manager = handle._manager
        assert await manager.submit("a", REQUESTS[:1], "fp")
        assert obeyed(manager).submitted == ["r0", "r1"]

    run(test, PATIENCE_S)


def test_a_server_with_other_answers_does_not_go_on() -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        handle._manager = next_manager("other")
        with pytest.raises(ApiError, match="changes from fp to other"):
            await anext(call.news())

    run(test, PATIENCE_S)


def test_nobody_waits_for_one_that_is_not_replaced() -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        handle._manager = Gone()
        with pytest.raises(ApiError, match="it died"):
            await anext(call.news())

    run(test, 0.0)


def test_what_one_that_lives_has_told_in_vain_ends_requests() -> None:
    """A message was lost, and with it tokens: a stream must not go on without them."""

    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        same, handle._manager = handle._manager, Gone()
        await asyncio.sleep(0.1)
        handle._manager = same
        with pytest.raises(ApiError, match="it died"):
            await anext(call.news())

    run(test, PATIENCE_S)


def test_what_was_cancelled_is_not_handed_on() -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        handle._manager = second = next_manager()
        await until(lambda: "r0" in second._owners)
        await call.__aexit__()
        await until(lambda: not second._owners)
        handle._manager = third = next_manager()
        await until(lambda: exchange._managers[-1] == third._id)
        assert not third._owners

    run(test, PATIENCE_S)


def ended() -> Result:
    return Result(id="r0", tokens=(7, 8, 9), finish_reason="length")


def test_one_that_is_still_there_is_not_listened_to() -> None:
    """Ray Serve starts the next one first where a node drains: both answer in turn."""

    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        first, handle._manager = handle._manager, next_manager()
        second = handle._manager
        await until(lambda: "r0" in second._owners)
        handle._manager = first
        first._deliver([update(2)], [ended()])
        await until(lambda: not first._inboxes["a"].results)
        assert call._queue.empty()
        handle._manager = second
        second._deliver([update(2)], [ended()])
        found = [item async for items in call.news() for item in items]
        assert told(found) == ["r0", "r0"]

    run(test, PATIENCE_S)


def test_what_is_handed_on_has_a_place_in_a_full_queue() -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        second = Manager(max_unfinished=1)
        await second.submit("b", [replace(REQUESTS[0], id="new")], "fp")
        handle._manager = second
        await until(lambda: "r0" in second._owners)
        assert await second.submit("b", [replace(REQUESTS[0], id="newer")], "fp") is None

    run(test, PATIENCE_S)


def test_one_that_died_before_it_told_anything_is_replaced_too() -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        call._manager = "one that answered no poll"
        await until(lambda: call._manager == handle._manager._id)

    async def whole() -> None:
        handle = Handle(next_manager())
        exchange = Exchange(handle, "a", patience_s=PATIENCE_S)
        async with exchange.call(REQUESTS, stays, fingerprint="fp") as call:
            assert not exchange._managers
            await test(handle, exchange, call)
        for task in exchange._tasks:
            task.cancel()

    asyncio.run(whole())


def test_an_answer_that_is_complete_is_not_handed_on() -> None:
    """The client has not read it yet, and the next one would refuse."""

    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        handle._manager._deliver([update(2)], [ended()])
        await until(lambda: not call._so_far)
        handle._manager = other = next_manager("other")
        await until(lambda: exchange._managers[-1] == other._id)
        found = [item async for items in call.news() for item in items]
        assert told(found) == ["r0", "r0"]

    run(test, PATIENCE_S)


def test_a_request_that_all_owners_die_of_ends() -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        for _ in range(exchanging.MOST_MANAGERS - 1):
            handle._manager = made = next_manager()
            await until(lambda made=made: call._manager == made._id)
        handle._manager = next_manager()
        with pytest.raises(ApiError, match="4 owners of its targets ended while this request ran"):
            await anext(call.news())

    run(test, PATIENCE_S)


def test_nobody_waits_for_ever_for_an_owner() -> None:
    async def whole() -> None:
        class Silent:
            def __getattr__(self, name: str) -> Any:
                async def hang(*arguments: Any) -> None:
                    await asyncio.sleep(3600)

                return hang

        exchange = Exchange(Handle(Silent()), "a", patience_s=0.1)
        with pytest.raises(ApiError, match=r"nothing answers for 0\.1 s"):
            async with exchange.call(REQUESTS, stays):
                pass
        for task in exchange._tasks:
            task.cancel()

    asyncio.run(whole())


def test_what_the_next_one_runs_on_is_asked_anew() -> None:
    async def test(handle: Handle, exchange: Exchange, call: Call) -> None:
        handle._manager._description = {"device": "cpu"}
        assert await exchange.told() == {"device": "cpu"}
        handle._manager = second = next_manager()
        second._description = {"device": "cuda"}
        assert await exchange.told() == {"device": "cpu"}  # nobody has noticed
        await until(lambda: "r0" in second._owners)
        assert await exchange.told() == {"device": "cuda"}
        second._description, second.fingerprint = {"device": "other"}, "other"
        with pytest.raises(ApiError, match="changes from fp to other"):
            async with exchange.call(make_requests(1), stays, fingerprint="fp"):
                pass
        assert await exchange.told() == {"device": "other"}

    run(test, PATIENCE_S)

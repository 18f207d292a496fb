"""Answers as HTTP has them, without a server: when a call ends, and where a stream goes on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from actors.manager.manager import Manager
from models.engine_config import EngineConfig
from models.requests.request import Result
from pipelines.serve.answers.choice import Delta
from pipelines.serve.answers.heading import Heading
from pipelines.serve.answers.place import first_place, parse_place
from pipelines.serve.answers.progress import parse_progress
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.decided import digest_of
from pipelines.serve.bodies.fields import ChatBody
from pipelines.serve.bodies.plan import Bounds, plan
from pipelines.serve.door.limits import Clients, Limits
from pipelines.serve.generation import streams
from pipelines.serve.generation.exchange import Exchange
from pipelines.serve.generation.generation import Generation
from pipelines.serve.generation.streams import Stream, continued, limited, whole
from tests.actors.conftest import make_requests
from tests.pipelines.serve.local import Handle, facts_of


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


def test_a_silent_stream_has_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.02)
    closed: list[bool] = []

    async def events() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await asyncio.sleep(0.3)
            yield b"b"
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    async def run() -> None:
        found = streams.with_pings(events())
        assert await anext(found) == b"a"
        told = [await anext(found)]
        while told[-1] != b"b":
            told.append(await anext(found))
        assert len(told) > 2
        assert set(told[:-1]) == {b": ping\n"}
        assert await anext(found) == b": ping\n"
        await found.aclose()
        await asyncio.sleep(0)
        assert closed == [True]

    asyncio.run(run())


def test_an_error_comes_through_the_comments() -> None:
    async def events() -> AsyncIterator[bytes]:
        yield b"a"
        raise KeyError

    async def run() -> None:
        found = streams.with_pings(events())
        assert await anext(found) == b"a"
        with pytest.raises(KeyError):
            await anext(found)

    asyncio.run(run())


def test_clients_pass_over_comments(demo_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.001)
    body: dict[str, Any] = {"model": "demo", "prompt": "Once", "max_tokens": 40, "seed": 1}
    with openai.OpenAI(base_url=f"{demo_url}/v1", api_key="none", max_retries=0) as client:
        whole = client.completions.create(**body).choices[0].text
        with client.completions.with_streaming_response.create(**body, stream=True) as raw:
            lines = list(raw.iter_lines())
        chunks = list(client.completions.create(**body, stream=True))
    assert ": ping" in lines
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole


def test_a_call_ends_at_its_deadline() -> None:
    """Which may have passed while its prompt was read."""

    async def run() -> None:
        exchange = Exchange(Handle(Manager(max_unfinished=4)), "a", Clients(Limits(seconds=3)))
        deadline = asyncio.get_running_loop().time() - 1
        async with exchange.call(make_requests(1), stays, deadline=deadline) as call:
            with pytest.raises(ApiError, match="after 3 s"):
                async for _ in call.news():
                    pass
        for task in exchange._tasks:
            task.cancel()

    asyncio.run(run())


def body(**fields: Any) -> ChatBody:
    return ChatBody(messages=[{"role": "user", "content": "a"}], stream=True, **fields)


HEADING = Heading(
    id="chatcmpl-" + "0a" * 16, created=5, model="m", fingerprint="fp", seed=7, prompt_tokens=3
)
DIGEST = "0b" * 8
FACTS = facts_of(EngineConfig(target="demo"))
PROMPT = range(10)


def made(given: ChatBody, max_length: int) -> Generation:
    """By a server whose model takes so many tokens."""
    bounds = Bounds(max_length=max_length, vocabulary=50)
    planned = plan(given, [PROMPT], bounds, name="chatcmpl-a")
    write: Any = lambda heading: None  # noqa: E731
    return Generation(Exchange(None, "a"), FACTS, planned, write)


def resumed(given: ChatBody, last: str) -> ChatBody:
    """The body of a stream that goes on after this id."""
    return continued(last, given, FACTS, parse_progress)[0]


def tokens_of(generation: Generation) -> int:
    return generation._plan.requests[0].sampling.max_tokens


def test_a_stream_goes_on_with_the_limit_that_it_began_with() -> None:
    began = made(body(seed=7), 100).progress(None, DIGEST)
    assert began is not None
    last = began.note(Delta(0, text="Hello"))
    assert last == f"fp.7m90.{DIGEST}.5-0"
    for given in (body(seed=7), body(seed=7, max_tokens=90)):
        mark = parse_progress(last)
        rest = made(limited(given, mark), 200)
        assert tokens_of(rest) == 90
        progress = rest.progress(mark, DIGEST)
        assert progress is not None
        assert progress.note(Delta(0, text=" you")) == f"fp.7m90.{DIGEST}.9-0"
    with pytest.raises(ApiError, match="do not fit"):
        made(limited(body(seed=7), parse_progress(last)), 50)
    with pytest.raises(ApiError, match="of up to 90 tokens; this body has 8"):
        limited(body(seed=7, max_tokens=8), parse_progress(last))


def test_an_id_without_a_limit_needs_one_in_the_body() -> None:
    last = f"fp.7.{DIGEST}.5-0"
    mark = parse_progress(last)
    with pytest.raises(ApiError, match="name the one that the stream began with"):
        resumed(body(seed=7), last)
    rest = made(limited(body(seed=7, max_tokens=8), mark), 100)
    assert tokens_of(rest) == 8
    assert rest.progress(mark, DIGEST) is mark


def test_places_have_the_limit_too() -> None:
    place = first_place(replace(HEADING, limit=90), DIGEST, named=True)
    place.once()
    assert str(place.id).startswith(f"fp.7m90.{DIGEST}.5.")
    mark = parse_place(str(place.id))
    assert (mark.id, mark.limit) == (place.id, 90)
    assert parse_place(str(first_place(HEADING, DIGEST, named=True).id)).limit is None


def test_the_seed_of_a_body_stays_as_it_was_sent() -> None:
    """One below 0 has another number in the id; the rest says the body's, as the beginning did."""

    last = f"fp.{-5 % 2**63}m9.{digest_of(body())}.1-0"
    assert resumed(body(seed=-5), last).seed == -5
    assert resumed(body(), last).seed == -5 % 2**63
    with pytest.raises(ApiError, match="this body has -6"):
        resumed(body(seed=-6), last)

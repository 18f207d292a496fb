"""Answers as HTTP has them: what ends with them, and where a stream goes on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from models.exactness import IDENTICAL
from pipelines.serve.answers.events import MEDIA, PING
from pipelines.serve.answers.place import Place
from pipelines.serve.answers.progress import Progress
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.decided import digest_of, limits_of
from pipelines.serve.bodies.fields import ChatBody, CompletionBody
from pipelines.serve.bodies.messages import MessagesBody
from pipelines.serve.bodies.responses import ResponsesBody
from pipelines.serve.generation.exchange import Call
from pipelines.serve.generation.facts import Facts

PING_S = 15.0  # without an event, after which a comment is sent: proxies cut silent connections

Completed = TypeVar("Completed", CompletionBody, ChatBody, ResponsesBody, MessagesBody)
Mark = TypeVar("Mark", Progress, Place)


class Stream(StreamingResponse):
    """Server-sent events; the call ends with them, also when the client goes."""

    def __init__(
        self, call: Call, events: AsyncIterator[bytes], *, headers: dict[str, str]
    ) -> None:
        super().__init__(with_pings(events), media_type=MEDIA, headers=headers)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the framework to send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._call.__aexit__()


async def with_pings(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events, and a comment whenever none has come for a while: prompts may be long."""
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            if not (await asyncio.wait({coming}, timeout=PING_S))[0]:
                yield PING
                continue
            event = coming.result()
            if event is None:
                return
            yield event
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()  # of a client that has gone


class Whole(JSONResponse):
    """An answer in one piece; the call ends when it has been sent."""

    def __init__(self, call: Call, content: dict[str, Any], *, headers: dict[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the framework to send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._call.__aexit__()


async def whole(call: Call, answer: Awaitable[dict[str, Any]], *, headers: dict[str, str]) -> Whole:
    """The response with the answer of a call, which has begun. Raises what the answer raises."""
    try:
        return Whole(call, await answer, headers=headers)
    except BaseException:
        await call.__aexit__()
        raise


def continued(
    last: str, body: Completed, facts: Facts, parse: Callable[[str], Mark]
) -> tuple[Completed, Mark, str]:
    """The body of a stream that goes on, with the seed that it began with, and where it was.

    `last`: the id of the last event that the client has seen; `parse` reads the ids of the route.
    The third is what the ids of events have of this body.

    Raises ApiError (400): the stream is another server's, or its rest would not be the same.
    """
    if not facts.repeats:
        told = f"Last-Event-ID needs a server whose answers are {IDENTICAL!r}: these are"
        told = f"{told} {facts.exactness!r} (docs/idea.md)"
        raise ApiError(told, param="Last-Event-ID", code="unsupported_parameter")
    if not body.stream or body.paceline.trace:
        told = "Last-Event-ID needs stream, without a trace"
        raise ApiError(told, param="Last-Event-ID", code="invalid_value")
    mark = parse(last)
    if mark.fingerprint != facts.fingerprint:
        told = f"Last-Event-ID is of the server {mark.fingerprint}; this is {facts.fingerprint}"
        raise ApiError(told, param="Last-Event-ID", code="invalid_value")
    if body.seed is not None and body.seed % 2**63 != mark.seed:
        told = f"Last-Event-ID is of seed {mark.seed}; this body has {body.seed}"
        raise ApiError(told, param="Last-Event-ID", code="invalid_value")
    if mark.limit is None and not limits_of(body):
        told = "Last-Event-ID has no limit of tokens, nor has the body: name the one that the"
        raise ApiError(f"{told} stream began with", param="Last-Event-ID", code="invalid_value")
    digest = digest_of(body, with_limit=mark.limit is None)
    if digest != mark.digest:
        told = "Last-Event-ID is of another body: the prompt and the options must be those that the"
        raise ApiError(f"{told} stream began with", param="Last-Event-ID", code="invalid_value")
    if body.seed is None:  # one below 0 is another number in the id
        body = body.model_copy(update={"seed": mark.seed})
    return body, mark, digest


def limited(body: ChatBody, mark: Progress | Place | None) -> ChatBody:
    """The body of a stream that goes on, with the limit that it began with, if it names none.

    Raises ApiError (400): it names another one.
    """
    if mark is None or mark.limit is None:
        return body
    other = set(body.limits.values()) - {mark.limit}
    if other:
        told = f"Last-Event-ID is of an answer of up to {mark.limit} tokens; this body has"
        raise ApiError(f"{told} {min(other)}", param="Last-Event-ID", code="invalid_value")
    return body.model_copy(update={"max_completion_tokens": mark.limit})

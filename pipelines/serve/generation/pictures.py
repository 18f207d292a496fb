"""Images of an image target: from a body to requests, and from results to base64 PNGs."""

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count, takewhile
from typing import Any

from models.errors import InvalidOption
from models.requests.request import Request, Result, Sampling
from pipelines.modality.images import Images
from pipelines.serve.answers.events import event, named_event
from pipelines.serve.api_error import ApiError, failed
from pipelines.serve.bodies.fields import ImageBody
from pipelines.serve.bodies.plan import choice_seed
from pipelines.serve.generation.exchange import Call, ClientLeft, Exchange, Gone
from pipelines.serve.generation.facts import Facts, known

SAME = ("temperature", "top_p", "top_k", "min_p")


class Pictures:
    """The prompt of an image is the number of its class."""

    def __init__(self, images: Images, exchange: Exchange, facts: Facts) -> None:
        self._images, self._exchange, self._facts = images, exchange, facts
        self._codec = images.codec()

    async def call(
        self, body: ImageBody, seed: int, gone: Gone, client: str, deadline: float | None
    ) -> Call:
        """The requests of a body, to be run. Raises ApiError (400), and 503 while it loads."""
        self._facts.check_count(body.n)
        if body.stream and body.n > 1:
            told = f"n={body.n} is not accepted with stream: one image is streamed"
            raise ApiError(told, param="n", code="invalid_value")
        if body.partial_images and not body.stream:
            told = "partial_images needs stream"
            raise ApiError(told, param="partial_images", code="invalid_value")
        if self._facts.steps:
            self._check_student(body)
        elif body.steps is not None:
            told = f"steps={body.steps} is not supported: only by a student"
            raise ApiError(told, param="steps", code="unsupported_parameter")
        requests = self._requests(body, seed)
        fingerprint = known(self._facts, await self._exchange.told()).fingerprint
        return self._exchange.call(requests, gone, client, fingerprint, deadline)

    async def whole(self, call: Call, seed: int) -> dict[str, Any]:
        """OpenAI's images response. Raises ApiError."""
        results: list[Result | None] = [None] * len(call.requests)
        async for items in call.news():
            for index, item in items:
                results[index] = _drawn(item) if isinstance(item, Result) else None
        ended = [result for result in results if result is not None]
        pictures = await asyncio.to_thread(
            self._codec.decode_batch, [list(result.tokens) for result in ended]
        )
        return {
            "created": int(time.time()),
            "data": [{"b64_json": _base64(each)} for each in pictures],
            "output_format": "png",
            "seed": seed,
            "system_fingerprint": call.fingerprint,
            "paceline": {"exactness": ended[0].exactness},
            "usage": _usage(call.requests, ended),
        }

    async def events(self, call: Call, previews: int) -> AsyncIterator[bytes]:
        """One image as OpenAI's events: previews of what is decided, then the image."""
        known: dict[int, int] = {}  # token by position
        total, told = self._images.about.num_tokens, 0
        try:
            async for items in call.news():
                for _, item in items:
                    if isinstance(item, Result):
                        picture = await asyncio.to_thread(self._picture, _drawn(item))
                        usage = _usage(call.requests, [item])
                        yield _event("completed", picture, usage=usage)
                        continue
                    known.update(zip(item.positions, item.tokens, strict=True))
                if told < previews and total > len(known) >= total * (told + 1) / (previews + 1):
                    picture = await asyncio.to_thread(self._preview, known)
                    yield _event("partial_image", picture, partial_image_index=told)
                    told += 1
        except ApiError as error:
            yield event(error.body())
        except ClientLeft:
            return

    def _check_student(self, body: ImageBody) -> None:
        """Raise ApiError (400) for what a student cannot honour."""
        for name in SAME:
            value, learned = getattr(body, name), ImageBody.model_fields[name].default
            if value != learned:
                told = f"{name}={value} is not accepted: a student has learned with {learned}"
                raise ApiError(told, param=name, code="invalid_value")
        if body.steps is not None and not 1 <= body.steps <= self._facts.max_steps:
            told = f"steps={body.steps} is not accepted: 1 to {self._facts.max_steps}"
            raise ApiError(told, param="steps", code="invalid_value")
        if body.partial_images:
            told = f"partial_images={body.partial_images} is not accepted: 0 with a student"
            raise ApiError(told, param="partial_images", code="invalid_value")

    def _picture(self, result: Result) -> bytes:
        return self._codec.decode_batch([list(result.tokens)])[0]

    def _preview(self, known: Mapping[int, int]) -> bytes:
        """Of the positions that are decided without a gap from the first on."""
        first = takewhile(known.__contains__, count())
        return self._codec.preview([known[place] for place in first])

    def _requests(self, body: ImageBody, seed: int) -> list[Request]:
        name = f"img-{uuid.uuid4().hex}"
        try:
            text = self._images.prompt(body.prompt, "prompt").text
            values = {each: getattr(body, each) for each in SAME}
            sampling = Sampling(max_tokens=self._images.about.num_tokens, **values)
        except InvalidOption as error:
            raise ApiError(str(error), param=error.field, code="invalid_value") from None
        except ValueError as error:
            raise ApiError(str(error), param="prompt", code="invalid_value") from None
        (prompt,) = self._codec.encode_batch([text])
        return [
            Request(
                id=f"{name}/{choice}",
                prompt=tuple(prompt),
                sampling=sampling,
                seed=choice_seed(seed, choice),
                stream=body.stream,
                priority=body.priority,
                steps=body.steps,
            )
            for choice in range(body.n)
        ]


def _drawn(result: Result) -> Result:
    if result.finish_reason == "error":
        raise failed(result.error or "the request failed")
    return result


def _base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def _event(kind: str, picture: bytes, **fields: Any) -> bytes:
    name, auto = f"image_generation.{kind}", ("size", "quality", "background")
    told = {"type": name, "b64_json": _base64(picture), "created_at": int(time.time())}
    return named_event(
        name, {**told, "output_format": "png", **dict.fromkeys(auto, "auto"), **fields}
    )


def _usage(requests: Sequence[Request], results: Sequence[Result]) -> dict[str, Any]:
    asked = len(requests[0].prompt)
    generated = sum(len(result.tokens) for result in results)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": asked},
        "output_tokens": generated,
        "total_tokens": asked + generated,
    }

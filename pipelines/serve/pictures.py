"""Images of an image target: from a body to requests, and from results to base64 PNGs."""

import asyncio
import base64
import time
import uuid
from collections.abc import Sequence
from typing import Any

from models.errors import InvalidOption
from models.requests.request import Request, Result, Sampling
from pipelines.modality.images import Images
from pipelines.serve.api_error import ApiError, failed
from pipelines.serve.exchange import Exchange, Gone
from pipelines.serve.facts import Facts
from pipelines.serve.fields import ImageBody
from pipelines.serve.plan import choice_seed, drawn_seed

SAME = ("temperature", "top_p", "top_k", "min_p")


class Pictures:
    """The prompt of an image is the number of its class."""

    def __init__(self, images: Images, exchange: Exchange, facts: Facts) -> None:
        self._images, self._exchange, self._facts = images, exchange, facts
        self._codec = images.codec()

    async def answer(self, body: ImageBody, gone: Gone, client: str) -> dict[str, Any]:
        """OpenAI's images response. Raises ApiError."""
        seed = drawn_seed() if body.seed is None else body.seed
        requests = self._requests(body, seed)
        results: list[Result | None] = [None] * len(requests)
        async with self._exchange.call(requests, gone, client) as call:
            async for items in call.news():
                for index, item in items:
                    results[index] = _drawn(item) if isinstance(item, Result) else None
        ended = [result for result in results if result is not None]
        pictures = await asyncio.to_thread(
            self._codec.decode_batch, [list(result.tokens) for result in ended]
        )
        return {
            "created": int(time.time()),
            "data": [{"b64_json": base64.b64encode(each).decode()} for each in pictures],
            "output_format": "png",
            "seed": seed,
            "system_fingerprint": self._facts.fingerprint,
            "usage": _usage(requests, ended),
        }

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
            )
            for choice in range(body.n)
        ]


def _drawn(result: Result) -> Result:
    if result.finish_reason == "error":
        raise failed(result.error or "the request failed")
    return result


def _usage(requests: Sequence[Request], results: Sequence[Result]) -> dict[str, Any]:
    asked = len(requests[0].prompt)
    generated = sum(len(result.tokens) for result in results)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": asked},
        "output_tokens": generated,
        "total_tokens": asked + generated,
    }

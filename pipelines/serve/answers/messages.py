"""Answers of /v1/messages, whole or as Anthropic's events."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.serve.answers.answer import decoding
from pipelines.serve.answers.choice import AnswerChoice, Delta
from pipelines.serve.answers.events import named_event
from pipelines.serve.answers.heading import Heading, Json
from pipelines.serve.answers.parts import Part, Parts
from pipelines.serve.answers.place import Place
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.tools import CallText

# What Anthropic's schemas require, and this server does not know.
_NOT_TOLD: Json = dict.fromkeys(
    (
        "cache_creation",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "inference_geo",
        "output_tokens_details",
        "server_tool_use",
        "service_tier",
    )
)
_ENDED: Json = dict.fromkeys(("stop_reason", "stop_sequence", "stop_details"))


class MessageWriter:
    """One choice: blocks of text and of the use of tools."""

    def __init__(self, heading: Heading, parts: Parts, place: Place) -> None:
        self._heading, self._parts, self._place = place.heading(heading), parts, place

    def whole(self, choices: Sequence[AnswerChoice]) -> Json:
        """The message."""
        (choice,) = choices
        list(self._parts.feed(choice.whole))
        content = [self._block(part) for part in self._parts.all]
        usage = self._usage(choice.num_tokens) | self._heading.predicted(choices)
        ended = self._ended(choice) | {"usage": usage}
        return {**self._message(content), **ended, **decoding(choices)}

    def opening(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """The message without content."""
        message = {**self._message([]), **_ENDED, "usage": self._usage(0)}
        yield from self._event("message_start", message=message)

    def news(self, delta: Delta) -> Iterator[bytes]:
        """More text, or more of a tool's input; a block ends when the next one begins."""
        for news in self._parts.feed(delta):
            index = news.part.index
            if news.begins:
                if index:
                    yield from self._event("content_block_stop", index=index - 1)
                begun = self._begun(news.part)
                yield from self._event("content_block_start", index=index, content_block=begun)
            more = self._place.more(news.more, ())
            if more is not None:
                told = _more(news.part, more[0])
                yield self._told("content_block_delta", index=index, delta=told)

    def closing(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """Why it ended, and the usage."""
        (choice,) = choices
        yield from self._event("content_block_stop", index=len(self._parts.all) - 1)
        usage = self._usage(choice.num_tokens) | self._heading.predicted(choices)
        ended = self._ended(choice)
        yield from self._event("message_delta", delta=ended, usage=usage, **decoding(choices))
        yield from self._event("message_stop")

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """An error ends the stream."""
        yield named_event("error", anthropic_error(error))

    def _event(self, kind: str, **fields: Any) -> Iterator[bytes]:
        """One that comes once, unless it came on an earlier connection."""
        if self._place.once():
            yield self._told(kind, **fields)

    def _told(self, kind: str, **fields: Any) -> bytes:
        return named_event(kind, {"type": kind, **fields}, self._place.id)

    def _block(self, part: Part) -> Json:
        if part.call is None:
            return _text(part.text)
        return self._use(part, part.call, _parsed(part.call.arguments))

    def _begun(self, part: Part) -> Json:
        """A block whose content is still to come."""
        return _text("") if part.call is None else self._use(part, part.call, {})

    def _use(self, part: Part, call: CallText, given: Any) -> Json:
        key = self._place.call_id(part.index).removeprefix("call_")
        named = {"id": f"toolu_{key}", "name": call.name, "input": given}
        return {"type": "tool_use", **named, "caller": {"type": "direct"}}

    def _ended(self, choice: AnswerChoice) -> Json:
        """A call that a stop sequence or the limit has cut is not to be made."""
        stop = choice.result.stop_text if choice.result is not None else None
        reason = "tool_use" if self._parts.has_calls and not self._parts.is_cut else "end_turn"
        if stop is not None:
            reason = "stop_sequence"
        if choice.whole.finish_reason == "length":
            reason = "max_tokens"
        return _ENDED | {"stop_reason": reason, "stop_sequence": stop}

    def _message(self, content: list[Json]) -> Json:
        return {
            "id": f"msg_{self._heading.key}",
            "type": "message",
            "role": "assistant",
            "model": self._heading.model,
            "content": content,
            "container": None,
            "seed": self._heading.seed,
            "system_fingerprint": self._heading.fingerprint,
        }

    def _usage(self, generated: int) -> Json:
        """`input_tokens` are the whole prompt, also what was in the KV cache."""
        told = {"input_tokens": self._heading.prompt_tokens, "output_tokens": generated}
        return {**_NOT_TOLD, **told}


def anthropic_error(error: ApiError) -> Json:
    """An error in Anthropic's form."""
    told = error.body()["error"]
    kinds = {429: "rate_limit_error", 500: "api_error", 503: "overloaded_error"}
    kind = kinds.get(error.status, told["type"])
    return {"type": "error", "error": {"type": kind, "message": told["message"]}}


def _text(text: str) -> Json:
    return {"type": "text", "text": text, "citations": None}


def _parsed(arguments: str) -> Any:
    """The input; of a call that was cut, nothing."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _more(part: Part, more: str) -> Json:
    if part.call is None:
        return {"type": "text_delta", "text": more}
    return {"type": "input_json_delta", "partial_json": more}

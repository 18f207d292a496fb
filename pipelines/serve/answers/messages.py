"""Answers of /v1/messages, whole or as Anthropic's events."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.serve.answers.answer import decoding
from pipelines.serve.answers.choice import AnswerChoice, Delta
from pipelines.serve.answers.events import named_event
from pipelines.serve.answers.heading import Heading, Json
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.tools import CallText


class MessageWriter:
    """One choice: a text, or the use of a tool if `calls`."""

    def __init__(self, heading: Heading, *, calls: bool) -> None:
        self._heading = heading
        key = heading.id.partition("-")[2]
        self._id = f"msg_{key}"
        self._call = CallText(id=f"toolu_{key[:24]}") if calls else None
        self._opened = False

    def whole(self, choices: Sequence[AnswerChoice]) -> Json:
        """The message."""
        (choice,) = choices
        if self._call is None:
            content: Json = {"type": "text", "text": choice.whole.text}
        else:
            self._call.feed(choice.whole.text, ended=True)
            content = self._use(_parsed(self._call.arguments))
        ended = _ended(choice, self._call)
        usage = {"usage": self._usage(choice)}
        return {**self._message([content]), **ended, **usage, **decoding(choices)}

    def opening(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """The message without content."""
        ended = {"stop_reason": None, "stop_sequence": None}
        usage = {"input_tokens": self._heading.prompt_tokens, "output_tokens": 0}
        message = {**self._message([]), **ended, "usage": usage}
        yield _event("message_start", message=message)
        if self._call is None:
            yield from self._open({"type": "text", "text": ""})

    def news(self, delta: Delta) -> Iterator[bytes]:
        """More text, or more of a tool's input."""
        if self._call is None:
            if delta.text:
                yield _more({"type": "text_delta", "text": delta.text})
            return
        name, arguments = self._call.feed(delta.text, ended=delta.finish_reason is not None)
        if name:
            yield from self._open(self._use({}))
        if arguments:
            yield _more({"type": "input_json_delta", "partial_json": arguments})

    def closing(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """Why it ended, and the usage."""
        (choice,) = choices
        if self._opened:
            yield _event("content_block_stop", index=0)
        usage = self._usage(choice)
        delta = _ended(choice, self._call)
        yield _event("message_delta", delta=delta, usage=usage, **decoding(choices))
        yield _event("message_stop")

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """An error ends the stream."""
        yield named_event("error", anthropic_error(error))

    def _open(self, block: Json) -> Iterator[bytes]:
        self._opened = True
        yield _event("content_block_start", index=0, content_block=block)

    def _use(self, given: Json) -> Json:
        assert self._call is not None
        return {"type": "tool_use", "id": self._call.id, "name": self._call.name, "input": given}

    def _message(self, content: list[Json]) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._heading.model,
            "content": content,
            "seed": self._heading.seed,
            "system_fingerprint": self._heading.fingerprint,
        }

    def _usage(self, choice: AnswerChoice) -> Json:
        return {
            "input_tokens": self._heading.prompt_tokens,
            "output_tokens": choice.num_tokens,
        }


def anthropic_error(error: ApiError) -> Json:
    """An error in Anthropic's form."""
    told = error.body()["error"]
    kinds = {429: "rate_limit_error", 500: "api_error", 503: "overloaded_error"}
    kind = kinds.get(error.status, told["type"])
    return {"type": "error", "error": {"type": kind, "message": told["message"]}}


def _ended(choice: AnswerChoice, call: CallText | None) -> Json:
    stop = choice.result.stop_text if choice.result is not None else None
    reason = "end_turn" if stop is None else "stop_sequence"
    if call is not None:
        reason = "tool_use"
    if choice.whole.finish_reason == "length":
        reason = "max_tokens"
    return {"stop_reason": reason, "stop_sequence": stop}


def _parsed(arguments: str) -> Any:
    """The input; of a call that was cut, nothing."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _more(delta: Json) -> bytes:
    return _event("content_block_delta", index=0, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    return named_event(kind, {"type": kind, **fields})

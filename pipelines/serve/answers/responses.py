"""Answers of /v1/responses, whole or as typed events with sequence numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.serve.answers.answer import decoding
from pipelines.serve.answers.choice import AnswerChoice, Delta
from pipelines.serve.answers.events import named_event
from pipelines.serve.answers.forms import Chats
from pipelines.serve.answers.heading import Heading, Json
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.responses import ResponsesBody
from pipelines.serve.bodies.tools import CallText


class ResponseWriter:
    """One choice: a message, or a call of a function if `calls`."""

    def __init__(self, heading: Heading, body: ResponsesBody, chats: Chats, *, calls: bool) -> None:
        self._heading, self._body, self._chats = heading, body, chats
        key = heading.id.partition("-")[2]
        self._id = f"resp_{key}"
        self._item_id = f"fc_{key}" if calls else f"msg_{key}"
        self._call = CallText(id=f"call_{key[:24]}") if calls else None
        self._opened = False
        self._number = 0

    def whole(self, choices: Sequence[AnswerChoice]) -> Json:
        """The response, with its one output."""
        if self._call is not None:
            self._call.feed(choices[0].whole.text, ended=True)
        return self._response(choices)

    def opening(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """It has begun, and so has its output; a call begins with its name."""
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=self._response([]))
        if self._call is None:
            yield from self._open()

    def news(self, delta: Delta) -> Iterator[bytes]:
        """More text, or more arguments."""
        if self._call is None:
            if delta.text or delta.logprobs:
                told = {"delta": delta.text, "logprobs": self._logprobs(delta)}
                yield self._part_event("response.output_text.delta", **told)
            return
        name, arguments = self._call.feed(delta.text, ended=delta.finish_reason is not None)
        if name:
            yield from self._open()
        if arguments:
            kind = "response.function_call_arguments.delta"
            yield self._item_event(kind, delta=arguments)

    def closing(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """Everything once more, complete, and the usage."""
        whole = choices[0].whole
        if self._call is None:
            part = self._part(whole)
            told = {"text": whole.text, "logprobs": part["logprobs"]}
            yield self._part_event("response.output_text.done", **told)
            yield self._part_event("response.content_part.done", part=part)
        elif not self._opened:
            yield from self._open()
        if self._call is not None:
            arguments, kind = self._call.arguments, "response.function_call_arguments.done"
            yield self._item_event(kind, arguments=arguments, name=self._call.name)
        item = self._item(choices)
        yield self._event("response.output_item.done", output_index=0, item=item)
        response = self._response(choices)
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """An error ends the stream."""
        told = error.body()["error"]
        fields = {name: told[name] for name in ("code", "message", "param")}
        yield self._event("error", **fields)

    # --- parts --------------------------------------------------------------------------------

    def _open(self) -> Iterator[bytes]:
        self._opened = True
        item = self._item([])
        if self._call is not None:
            item["arguments"] = ""  # they come as deltas
        yield self._event("response.output_item.added", output_index=0, item=item)
        if self._call is None:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._part_event("response.content_part.added", part=part)

    def _event(self, kind: str, **fields: Any) -> bytes:
        told = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return named_event(kind, told)

    def _item_event(self, kind: str, **fields: Any) -> bytes:
        return self._event(kind, item_id=self._item_id, output_index=0, **fields)

    def _part_event(self, kind: str, **fields: Any) -> bytes:
        return self._item_event(kind, content_index=0, **fields)

    def _item(self, choices: Sequence[AnswerChoice]) -> Json:
        status = _status(choices)
        if self._call is not None:
            function = {"name": self._call.name, "arguments": self._call.arguments}
            head = {"type": "function_call", "id": self._item_id, "call_id": self._call.id}
            return {**head, **function, "status": status}
        content = [self._part(choice.whole) for choice in choices]
        head = {"type": "message", "id": self._item_id, "role": "assistant"}
        return {**head, "content": content, "status": status}

    def _part(self, whole: Delta) -> Json:
        logprobs = self._logprobs(whole)
        return {
            "type": "output_text",
            "text": whole.text,
            "annotations": [],
            "logprobs": logprobs,
        }

    def _logprobs(self, delta: Delta) -> list[Json]:
        return self._chats.entries(delta) if self._body.top_logprobs is not None else []

    def _response(self, choices: Sequence[AnswerChoice]) -> Json:
        body, status = self._body, _status(choices)
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        dumped = body.model_dump(by_alias=True, include={"tools", "tool_choice", "metadata"})
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._heading.created,
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self._heading.model,
            "output": [self._item(choices)] if choices else [],
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "text": _format(body),
            "tool_choice": dumped["tool_choice"] or "none",
            "tools": dumped["tools"],
            "truncation": "disabled",
            "usage": self._usage(choices) if choices else None,
            "metadata": dumped["metadata"],
            "seed": self._heading.seed,
            "system_fingerprint": self._heading.fingerprint,
            **(decoding(choices) if choices else {}),
        }

    def _usage(self, choices: Sequence[AnswerChoice]) -> Json:
        asked, told = self._heading.prompt_tokens, choices[0].num_tokens
        cached = self._heading.cached_tokens(choices)
        return {
            "input_tokens": asked,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": told,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + told,
        }


def _status(choices: Sequence[AnswerChoice]) -> str:
    if not choices:
        return "in_progress"
    return "incomplete" if choices[0].whole.finish_reason == "length" else "completed"


def _format(body: ResponsesBody) -> Json:
    asked = None if body.text is None else body.text.format
    return {"format": {"type": "text"} if asked is None else asked.model_dump(by_alias=True)}

"""Answers of /v1/responses, whole or as typed events with sequence numbers."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from models.requests.request import TokenLogprob
from pipelines.serve.answers.answer import decoding
from pipelines.serve.answers.choice import AnswerChoice, Delta
from pipelines.serve.answers.events import named_event, padding
from pipelines.serve.answers.forms import Chats
from pipelines.serve.answers.heading import Heading, Json
from pipelines.serve.answers.parts import Part, Parts
from pipelines.serve.answers.place import Place
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.responses import ResponsesBody


class ResponseWriter:
    """One choice: a message, calls of functions, or both."""

    def __init__(
        self, heading: Heading, body: ResponsesBody, chats: Chats, parts: Parts, place: Place
    ) -> None:
        self._heading, self._place = place.heading(heading), place
        self._body, self._chats, self._parts = body, chats, parts

    def whole(self, choices: Sequence[AnswerChoice]) -> Json:
        """The response, with its outputs."""
        list(self._parts.feed(choices[0].whole))
        return self._response(choices)

    def opening(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """It has begun."""
        for kind in ("created", "in_progress"):
            yield from self._event(f"response.{kind}", response=self._response([]))

    def news(self, delta: Delta) -> Iterator[bytes]:
        """More text, or more arguments; an output ends when the next one begins."""
        for news in self._parts.feed(delta):
            part = news.part
            if news.begins:
                if part.index:
                    yield from self._close(self._parts.all[part.index - 1], "completed")
                yield from self._open(part)
            more = self._place.more(news.more, news.logprobs)
            if more is not None:
                yield self._delta(part, *more)

    def closing(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """Everything once more, complete, and the usage."""
        response = self._response(choices)
        yield from self._close(self._parts.all[-1], response["status"])
        yield from self._event(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """An error ends the stream."""
        told = error.body()["error"]
        fields = {name: told[name] for name in ("code", "message", "param")}
        value = {"type": "error", "sequence_number": self._place.number, **fields}
        yield named_event("error", value)

    # --- parts --------------------------------------------------------------------------------

    def _padding(self) -> Json:
        options = self._body.stream_options
        padded = options is not None and options.include_obfuscation
        return {"obfuscation": padding()} if padded else {}

    def _open(self, part: Part) -> Iterator[bytes]:
        """A call begins with its name, a message with an empty text."""
        item = self._item(part, "in_progress")
        empty: Json = {"content": []} if part.call is None else {"arguments": ""}
        item |= empty
        yield from self._event("response.output_item.added", output_index=part.index, item=item)
        if part.call is None:
            text = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            at = self._in_text(part)
            yield from self._event("response.content_part.added", **at, part=text)

    def _delta(self, part: Part, more: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        """More text, or more arguments."""
        if part.call is not None:
            kind, at = "response.function_call_arguments.delta", self._in_item(part)
        else:
            kind, at = "response.output_text.delta", self._in_text(part)
            at["logprobs"] = self._logprobs(logprobs)
        return self._told(kind, **at, delta=more, **self._padding())

    def _close(self, part: Part, status: str) -> Iterator[bytes]:
        if part.call is None:
            text = self._text(part)
            told = {"text": part.text, "logprobs": text["logprobs"]}
            at = self._in_text(part)
            yield from self._event("response.output_text.done", **at, **told)
            yield from self._event("response.content_part.done", **at, part=text)
        else:
            told = {"arguments": part.call.arguments, "name": part.call.name}
            at = self._in_item(part)
            yield from self._event("response.function_call_arguments.done", **at, **told)
        item = self._item(part, status)
        yield from self._event("response.output_item.done", output_index=part.index, item=item)

    def _event(self, kind: str, **fields: Any) -> Iterator[bytes]:
        """One that comes once, unless it came on an earlier connection."""
        if self._place.once():
            yield self._told(kind, **fields)

    def _told(self, kind: str, **fields: Any) -> bytes:
        told = {"type": kind, "sequence_number": self._place.number - 1, **fields}
        return named_event(kind, told, self._place.id)

    def _in_item(self, part: Part) -> Json:
        return {"item_id": self._id(part), "output_index": part.index}

    def _in_text(self, part: Part) -> Json:
        return {**self._in_item(part), "content_index": 0}

    def _id(self, part: Part) -> str:
        if part.call is None:
            return f"msg_{self._heading.key}"
        return f"fc_{self._place.call_id(part.index).removeprefix('call_')}"

    def _item(self, part: Part, status: str) -> Json:
        if part.call is not None:
            function = {"name": part.call.name, "arguments": part.call.arguments}
            call_id = self._place.call_id(part.index)
            head = {"type": "function_call", "id": self._id(part), "call_id": call_id}
            return {**head, **function, "status": status}
        head = {"type": "message", "id": self._id(part), "role": "assistant"}
        return {**head, "content": [self._text(part)], "status": status}

    def _text(self, part: Part) -> Json:
        logprobs = self._logprobs(part.logprobs)
        return {
            "type": "output_text",
            "text": part.text,
            "annotations": [],
            "logprobs": logprobs,
        }

    def _logprobs(self, entries: Sequence[TokenLogprob]) -> list[Json]:
        return self._chats.entries(entries) if self._body.top_logprobs is not None else []

    def _status(self, choices: Sequence[AnswerChoice]) -> str:
        """A call that was cut, by the limit or a stop, is incomplete: it is not to be made."""
        if not choices:
            return "in_progress"
        cut = choices[0].whole.finish_reason == "length" or self._parts.is_cut
        return "incomplete" if cut else "completed"

    def _outputs(self, status: str) -> list[Json]:
        """Only the last one may have been cut."""
        *others, last = self._parts.all
        items = [self._item(part, "completed") for part in others]
        return [*items, self._item(last, status)]

    def _response(self, choices: Sequence[AnswerChoice]) -> Json:
        body, status = self._body, self._status(choices)
        limited = bool(choices) and choices[0].whole.finish_reason == "length"
        reason = {"reason": "max_output_tokens"} if limited else None
        dumped = body.model_dump(by_alias=True, include={"tools", "tool_choice", "metadata"})
        return {
            "id": f"resp_{self._heading.key}",
            "object": "response",
            "created_at": self._heading.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self._heading.model,
            "output": self._outputs(status) if choices else [],
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": None,
            "store": False,
            "max_tool_calls": None,
            "background": False,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "prompt_cache_key": None,
            "safety_identifier": body.safety_identifier,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_logprobs": body.top_logprobs or 0,
            "presence_penalty": body.presence_penalty,
            "frequency_penalty": body.frequency_penalty,
            "text": _format(body),
            "tool_choice": dumped["tool_choice"] or "auto",
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
            "output_tokens_details": {"reasoning_tokens": 0} | self._heading.predicted(choices),
            "total_tokens": asked + told,
        }


def _format(body: ResponsesBody) -> Json:
    asked = None if body.text is None else body.text.format
    return {"format": {"type": "text"} if asked is None else asked.model_dump(by_alias=True)}

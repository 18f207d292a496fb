"""Choices of answers in OpenAI's two forms, completions and chats, whole or in chunks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from models.requests.request import TokenLogprob
from pipelines.serve.answers.choice import Delta
from pipelines.serve.answers.heading import Json
from pipelines.serve.bodies.tools import CallText

Spell = Callable[[int], str]
INCOMPLETE = "\ufffd"


class AnswerForm(Protocol):
    """What differs between completions and chats."""

    @property
    def prefix(self) -> str: ...  # of ids
    @property
    def whole_kind(self) -> str: ...
    @property
    def chunk_kind(self) -> str: ...
    def opening(self, index: int) -> Json | None: ...
    def chunk(self, delta: Delta) -> Json: ...
    def choice(self, whole: Delta) -> Json: ...


@dataclass(frozen=True, slots=True)
class Completions:
    """Of /v1/completions. `logprobs`: whether they were asked for."""

    spell: Spell
    logprobs: bool
    prefix: str = "cmpl"
    whole_kind: str = "text_completion"
    chunk_kind: str = "text_completion"

    def opening(self, index: int) -> Json | None:
        """Nothing comes before the text."""
        return None

    def chunk(self, delta: Delta) -> Json:
        """A chunk's choice has the form of a whole one."""
        return {
            "index": delta.index,
            "text": delta.text,
            "logprobs": self._logprobs(delta) if self.logprobs else None,
            "finish_reason": delta.finish_reason,
        }

    choice = chunk

    def _logprobs(self, delta: Delta) -> Json:
        texts = [self.spell(entry.token) for entry in delta.logprobs]
        offsets, at = [], delta.offset
        for text in texts:
            offsets.append(at)
            at += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [entry.logprob for entry in delta.logprobs],
            "top_logprobs": [
                {self.spell(token): logprob for token, logprob in reversed(entry.top)}
                for entry in delta.logprobs
            ],
            "text_offset": offsets,
        }


@dataclass(frozen=True, slots=True)
class Chats:
    """Of /v1/chat/completions."""

    spell: Spell
    logprobs: bool
    prefix: str = "chatcmpl"
    whole_kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"

    def opening(self, index: int) -> Json | None:
        """The role comes first."""
        return chat_choice(index, "delta", {"role": "assistant", "content": ""}, None, None)

    def chunk(self, delta: Delta) -> Json:
        """New text."""
        text = {"content": delta.text} if delta.text else {}
        return chat_choice(delta.index, "delta", text, self._logprobs(delta), delta.finish_reason)

    def choice(self, whole: Delta) -> Json:
        """The message."""
        message = {"role": "assistant", "content": whole.text, "refusal": None}
        return chat_choice(
            whole.index, "message", message, self._logprobs(whole), whole.finish_reason
        )

    def _logprobs(self, delta: Delta) -> Json | None:
        if not self.logprobs:
            return None
        return {"content": self.entries(delta.logprobs), "refusal": None}

    def entries(self, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        """The log-probabilities of tokens."""
        return [self._entry(each) for each in logprobs]

    def _entry(self, entry: TokenLogprob) -> Json:
        top = [self._token(token, logprob) for token, logprob in entry.top]
        return {**self._token(entry.token, entry.logprob), "top_logprobs": top}

    def _token(self, token: int, logprob: float) -> Json:
        text = self.spell(token)
        raw = None if INCOMPLETE in text else list(text.encode())
        return {"token": text, "logprob": logprob, "bytes": raw}


@dataclass(frozen=True, slots=True)
class ToolChats(Chats):
    """Of /v1/chat/completions, where each choice calls a tool."""

    calls: dict[int, CallText] = field(default_factory=dict)  # by choice

    def opening(self, index: int) -> Json | None:
        """The role comes first."""
        return chat_choice(index, "delta", {"role": "assistant", "content": None}, None, None)

    def chunk(self, delta: Delta) -> Json:
        """The tool's name, once it is known, and its arguments as they come."""
        call = self.calls.setdefault(delta.index, CallText())
        told = call.chunk(delta.text, ended=delta.finish_reason is not None)
        news = {} if told is None else {"tool_calls": [told]}
        reason = _called(delta.finish_reason)
        return chat_choice(delta.index, "delta", news, self._logprobs(delta), reason)

    def choice(self, whole: Delta) -> Json:
        """The message with its call."""
        call = CallText()
        call.feed(whole.text, ended=True)
        message: Json = {"role": "assistant", "content": None, "refusal": None}
        message["tool_calls"] = [call.told()]
        reason = _called(whole.finish_reason)
        return chat_choice(whole.index, "message", message, self._logprobs(whole), reason)


def _called(reason: str | None) -> str | None:
    return "tool_calls" if reason == "stop" else reason


def chat_choice(
    index: int, name: str, value: Json, logprobs: Json | None, reason: str | None
) -> Json:
    """A choice; `name`: of the field that holds its `value`."""
    return {"index": index, name: value, "logprobs": logprobs, "finish_reason": reason}

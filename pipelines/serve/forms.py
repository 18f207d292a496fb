"""Answers in OpenAI's two forms, completions and chats, whole or in chunks."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol

from models.requests.request import Result, TokenLogprob
from pipelines.serve.api_error import ApiError
from pipelines.serve.choice import AnswerChoice, Delta
from pipelines.serve.events import DONE, event
from pipelines.serve.heading import Heading, Json
from pipelines.serve.tools import CallText
from pipelines.serve.trace import Trace

Spell = Callable[[int], str]
PADDING = 64  # characters, at most
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
class Prompt:
    """A text and its tokens."""

    text: str
    tokens: Sequence[int]


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
class Echoes(Completions):
    """Of /v1/completions with `echo`: texts that begin with their prompts."""

    prompts: Sequence[Prompt] = ()
    n: int = 1

    def opening(self, index: int) -> Json | None:
        """The prompt comes first; its log-probabilities are not streamed."""
        text = self._prompt(index).text
        return {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def choice(self, whole: Delta) -> Json:
        """Prompt and completion."""
        prompt = self._prompt(whole.index)
        told = Completions.chunk(self, whole)
        told["text"] = prompt.text + told["text"]
        if self.logprobs:
            entries = [*whole.prompt_logprobs, *whole.logprobs]
            first = self._first(prompt)
            rest = Delta(whole.index, logprobs=entries, offset=len(first["tokens"][0]))
            told["logprobs"] = _joined(first, self._logprobs(rest))
        return told

    def _first(self, prompt: Prompt) -> Json:
        """The first token has nothing before it that could tell its probability."""
        return {
            "tokens": [self.spell(prompt.tokens[0])],
            "token_logprobs": [None],
            "top_logprobs": [None],
            "text_offset": [0],
        }

    def _prompt(self, index: int) -> Prompt:
        return self.prompts[index // self.n]


def _joined(first: Json, rest: Json) -> Json:
    return {name: [*values, *rest[name]] for name, values in first.items()}


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
        return _chat(index, "delta", {"role": "assistant", "content": ""}, None, None)

    def chunk(self, delta: Delta) -> Json:
        """New text."""
        text = {"content": delta.text} if delta.text else {}
        return _chat(delta.index, "delta", text, self._logprobs(delta), delta.finish_reason)

    def choice(self, whole: Delta) -> Json:
        """The message."""
        message = {"role": "assistant", "content": whole.text, "refusal": None}
        return _chat(whole.index, "message", message, self._logprobs(whole), whole.finish_reason)

    def _logprobs(self, delta: Delta) -> Json | None:
        if not self.logprobs:
            return None
        return {"content": self.entries(delta), "refusal": None}

    def entries(self, delta: Delta) -> list[Json]:
        """The log-probabilities of a delta's tokens."""
        return [self._entry(each) for each in delta.logprobs]

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
        return _chat(index, "delta", {"role": "assistant", "content": None}, None, None)

    def chunk(self, delta: Delta) -> Json:
        """The tool's name, once it is known, and its arguments as they come."""
        call = self.calls.setdefault(delta.index, CallText())
        name, arguments = call.feed(delta.text, ended=delta.finish_reason is not None)
        told: Json = {"index": 0, "function": {"arguments": arguments}}
        if name:
            told |= {"id": call.id, "type": "function"}
            told["function"] = {"name": name, "arguments": arguments}
        news = {"tool_calls": [told]} if name or arguments else {}
        reason = _called(delta.finish_reason)
        return _chat(delta.index, "delta", news, self._logprobs(delta), reason)

    def choice(self, whole: Delta) -> Json:
        """The message with its call."""
        call = CallText()
        call.feed(whole.text, ended=True)
        message: Json = {"role": "assistant", "content": None, "tool_calls": [call.told()]}
        reason = _called(whole.finish_reason)
        return _chat(whole.index, "message", message, self._logprobs(whole), reason)


def _called(reason: str | None) -> str | None:
    return "tool_calls" if reason == "stop" else reason


def _chat(index: int, name: str, value: Json, logprobs: Json | None, reason: str | None) -> Json:
    return {"index": index, name: value, "logprobs": logprobs, "finish_reason": reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Heading):
    """What all chunks of an answer repeat. `include_usage`: in a stream, too."""

    form: AnswerForm
    include_usage: bool = False
    trace: Trace | None = None
    padded: bool = False  # with random text, so that a chunk's size does not tell its tokens

    def whole(self, choices: Sequence[AnswerChoice]) -> Json:
        """The answer to a body without `stream`."""
        found = [self.form.choice(choice.whole) for choice in choices]
        head = self._head(self.form.whole_kind)
        return {**head, "choices": found, "usage": self.usage(choices), **decoding(choices)}

    def chunk(self, choice: Json) -> Json:
        """One of a stream."""
        return {**self._head(self.form.chunk_kind), "choices": [choice]}

    def last_chunk(self, choices: Sequence[AnswerChoice]) -> Json:
        """With `include_usage`: no choices, but the usage."""
        head = self._head(self.form.chunk_kind)
        return {**head, "choices": [], "usage": self.usage(choices), **decoding(choices)}

    def opening(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """What comes before the text of the choices."""
        for choice in choices:
            first = self.form.opening(choice.index)
            if first is not None:
                yield event(self.chunk(first))

    def news(self, delta: Delta) -> Iterator[bytes]:
        """One chunk."""
        chunk = self.chunk(self.form.chunk(delta))
        if self.trace is not None:
            chunk["paceline"] = {"trace": self.trace.of(delta)}
        if self.padded:
            chunk["obfuscation"] = secrets.token_urlsafe(PADDING)[: secrets.randbelow(PADDING)]
        yield event(chunk)

    def closing(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """The usage, if asked for."""
        if self.include_usage:
            yield event(self.last_chunk(choices))
        yield DONE

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """An error is the last chunk."""
        yield event(error.body())

    def usage(self, choices: Sequence[AnswerChoice]) -> Json:
        """Tokens; a prompt counts once for all of its choices."""
        generated = sum(choice.num_tokens for choice in choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": self.prompt_tokens + generated,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens(choices)},
            **self._predicted(choices),
        }

    def _predicted(self, choices: Sequence[AnswerChoice]) -> Json:
        """Of a body with `prediction`."""
        if not self.has_prediction:
            return {}
        results = [choice.result for choice in choices if choice.result is not None]
        details = {
            "accepted_prediction_tokens": sum(result.predicted for result in results),
            "rejected_prediction_tokens": sum(result.mispredicted for result in results),
        }
        return {"completion_tokens_details": details}

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "seed": self.seed,
        }


def decoding(choices: Sequence[AnswerChoice]) -> Json:
    """How the tokens came about: they are the same whatever was drafted."""
    results = [choice.result for choice in choices if choice.result is not None]
    return {
        "paceline": {
            "exactness": sorted({result.exactness for result in results}),
            "target_passes": sum(result.target_passes for result in results),
            "draft_tokens": sum(result.draft_tokens for result in results),
        },
        "metrics": {"speculative_decoding": speculation(results)},
    }


def speculation(results: Sequence[Result]) -> Json | None:
    """The drafts of all choices together, in vLLM's form; None if there were none."""
    found = [result.accepted_histogram for result in results]
    histogram = [sum(counts) for counts in zip_longest(*found, fillvalue=0)]
    steps, drafted = sum(histogram), sum(result.draft_tokens for result in results)
    if not steps:
        return None
    accepted = sum(length * count for length, count in enumerate(histogram))
    return {
        "mean_acceptance_length": 1 + accepted / steps,
        "draft_acceptance_rate": accepted / drafted,
        "acceptance_histogram": histogram,
        "num_spec_steps": steps,
        "num_accepted_draft_tokens": accepted,
        "num_draft_tokens": drafted,
        "num_spec_tokens": len(histogram) - 1,
    }

"""Choices of /v1/chat/completions where the model chooses between a text and calls of tools."""

import re
from dataclasses import dataclass, field

from pipelines.serve.answers.choice import Delta
from pipelines.serve.answers.forms import Chats, chat_choice
from pipelines.serve.answers.heading import Json
from pipelines.serve.bodies.tool_tags import OPEN
from pipelines.serve.bodies.tools import CallText

# What may turn out to belong to a call: whitespace and a beginning of the tag, at a text's end.
BEGINNING = re.compile(rf"\s*(?:{'|'.join(re.escape(OPEN[:n]) for n in range(1, len(OPEN)))})?\Z")
LINES = 3  # of a call, the tags' lines included


@dataclass(slots=True)
class FreeText:
    """The growing text of one choice. `feed` returns what is new of its content and its calls."""

    calls: list[CallText] = field(default_factory=list)
    _text: str = ""
    _sent: int = 0  # characters of the content

    def feed(self, text: str, *, ended: bool = False) -> tuple[str, list[Json]]:
        """More of the content, and more of the calls as chunks have it."""
        self._text += text
        content, tag, rest = self._text.partition(OPEN)
        if tag:
            content = content.rstrip()
        elif not ended:
            content = BEGINNING.sub("", content)
        more, self._sent = content[self._sent :], max(self._sent, len(content))
        return more, self._feed_calls(rest, ended=ended)

    def _feed_calls(self, rest: str, *, ended: bool) -> list[Json]:
        """JSON holds no line end: each call has a line of its own, between those of its tags."""
        chunks = []
        lines = rest.split("\n")
        for index, line in enumerate(lines[1::LINES]):
            if index == len(self.calls):
                self.calls.append(CallText())
            call = self.calls[index]
            whole = ended or len(lines) > 2 + LINES * index
            told = call.chunk(line[len(call.text) :], index=index, ended=whole)
            if told is not None:
                chunks.append(told)
        return chunks

    @property
    def named(self) -> list[CallText]:
        """The calls whose tool is known; the last one may have been cut."""
        return [call for call in self.calls if call.name]


@dataclass(frozen=True, slots=True)
class FreeChats(Chats):
    """Of /v1/chat/completions with `tool_choice` auto."""

    texts: dict[int, FreeText] = field(default_factory=dict)  # by choice

    def chunk(self, delta: Delta) -> Json:
        """New text, or more of the calls."""
        text = self.texts.setdefault(delta.index, FreeText())
        content, calls = text.feed(delta.text, ended=delta.finish_reason is not None)
        news: Json = {"content": content} if content else {}
        if calls:
            news["tool_calls"] = calls
        reason = _reason(delta.finish_reason, text)
        return chat_choice(delta.index, "delta", news, self._logprobs(delta), reason)

    def choice(self, whole: Delta) -> Json:
        """The message, with its calls if there are any."""
        text = FreeText()
        content, _ = text.feed(whole.text, ended=True)
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        if text.named:
            message["content"] = content or None
            message["tool_calls"] = [call.told() for call in text.named]
        reason = _reason(whole.finish_reason, text)
        return chat_choice(whole.index, "message", message, self._logprobs(whole), reason)


def _reason(reason: str | None, text: FreeText) -> str | None:
    return "tool_calls" if reason == "stop" and text.named else reason

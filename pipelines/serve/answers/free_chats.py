"""Choices of /v1/chat/completions where the model chooses between a text and calls of tools."""

from dataclasses import dataclass, field

from pipelines.serve.answers.choice import Delta
from pipelines.serve.answers.forms import Chats, chat_choice
from pipelines.serve.answers.heading import Json
from pipelines.serve.bodies.tool_tags import OPEN
from pipelines.serve.bodies.tools import CallText

LINES = 3  # of a call, the tags' lines included


@dataclass(slots=True)
class FreeText:
    """The growing text of one choice. `feed` returns what is new of its content and its calls."""

    calls: list[CallText] = field(default_factory=list)
    _text: str = ""
    _sent: int = 0  # characters of the content
    _tag: int = -1  # where the tag begins; -1: it has not come
    _searched: int = 0  # characters before which no tag begins

    def feed(self, text: str, *, ended: bool = False) -> tuple[str, list[Json]]:
        """More of the content, and more of the calls as chunks have it."""
        self._text += text
        if self._tag < 0:
            self._tag = self._text.find(OPEN, self._searched)
            self._searched = max(0, len(self._text) - len(OPEN) + 1)
        if self._tag >= 0:
            end = without_space(self._text, self._tag, self._sent)
        else:
            end = len(self._text) if ended else settled(self._text, self._sent)
        more, self._sent = self._text[self._sent : end], max(self._sent, end)
        rest = self._text[self._tag + len(OPEN) :] if self._tag >= 0 else ""
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

    @property
    def is_cut(self) -> bool:
        """Whether the last call lacks its end."""
        return bool(self.calls) and not self.calls[-1].is_whole


def settled(text: str, start: int = 0) -> int:
    """Where the text ends that can belong to no call: before whitespace and a part of the tag."""
    end = len(text)
    parts = (n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n]))
    return without_space(text, end - next(parts, 0), start)


def without_space(text: str, end: int, start: int) -> int:
    """The end of `text[start:end]` without the whitespace at its end."""
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


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
    return "tool_calls" if reason == "stop" and text.named and not text.is_cut else reason

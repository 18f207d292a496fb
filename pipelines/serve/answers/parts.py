"""An answer as a list of parts while it grows: a text, then calls of tools.

/v1/responses calls them output items, /v1/messages content blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from models.requests.request import TokenLogprob
from pipelines.serve.answers.choice import Delta
from pipelines.serve.answers.free_chats import FreeText, settled
from pipelines.serve.answers.heading import Json
from pipelines.serve.bodies.tool_tags import OPEN
from pipelines.serve.bodies.tools import CallText


@dataclass(slots=True)
class Part:
    """A text, or a call; `index`: its place in the answer."""

    index: int
    call: CallText | None = None
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of a text


@dataclass(frozen=True, slots=True, kw_only=True)
class PartNews:
    """What a part has gained: `more` of its text, or of its call's arguments."""

    part: Part
    begins: bool
    more: str
    logprobs: Sequence[TokenLogprob] = ()


class Reader(Protocol):
    """Takes a growing text apart: more of the content, and more of the calls as chunks."""

    @property
    def calls(self) -> Sequence[CallText]: ...
    def feed(self, text: str, *, ended: bool = False) -> tuple[str, list[Json]]: ...
    def tokens(self, new: list[TokenLogprob], *, ended: bool) -> list[TokenLogprob]: ...


@dataclass(frozen=True, slots=True)
class TextReader:
    """All is content."""

    calls: tuple[CallText, ...] = ()

    def feed(self, text: str, *, ended: bool = False) -> tuple[str, list[Json]]:
        """The content."""
        return text, []

    def tokens(self, new: list[TokenLogprob], *, ended: bool) -> list[TokenLogprob]:
        """Those of the content."""
        return new


@dataclass(frozen=True, slots=True)
class CallReader:
    """All is one call."""

    calls: tuple[CallText] = field(default_factory=lambda: (CallText(),))

    def feed(self, text: str, *, ended: bool = False) -> tuple[str, list[Json]]:
        """More of the call."""
        told = self.calls[0].chunk(text, ended=ended)
        return "", [] if told is None else [told]

    def tokens(self, new: list[TokenLogprob], *, ended: bool) -> list[TokenLogprob]:
        """There is no content."""
        return []


@dataclass(slots=True)
class FreeReader:
    """Content up to the tag, then calls. Tokens of the content are those that end before it."""

    spell: Callable[[int], str]
    _text: FreeText = field(default_factory=FreeText)
    _spelled: str = ""
    _held: list[tuple[int, TokenLogprob]] = field(default_factory=list)  # with where they end

    @property
    def calls(self) -> Sequence[CallText]:
        """Those begun; a name may not be known yet."""
        return self._text.calls

    def feed(self, text: str, *, ended: bool = False) -> tuple[str, list[Json]]:
        """More of the content, and of the calls."""
        return self._text.feed(text, ended=ended)

    def tokens(self, new: list[TokenLogprob], *, ended: bool) -> list[TokenLogprob]:
        """More of those of the content: none that may be a part of the tag."""
        for entry in new:
            self._spelled += self.spell(entry.token)
            self._held.append((len(self._spelled), entry))
        before, tag, _ = self._spelled.partition(OPEN)
        if not (tag or ended):
            before = before[: settled(before)]
        known = [entry for end, entry in self._held if end <= len(before)]
        self._held = self._held[len(known) :]
        return known


class Parts:
    """`feed` deltas of one choice; `all` parts so far. An answer that says nothing is a text."""

    def __init__(self, reader: Reader) -> None:
        self.all: list[Part] = []
        self._reader = reader
        self._waiting: list[TokenLogprob] = []  # for the text to begin
        self._of_calls: dict[int, Part] = {}

    def feed(self, delta: Delta) -> Iterator[PartNews]:
        """What the delta adds, in the order of the parts."""
        ended = delta.finish_reason is not None
        content, calls = self._reader.feed(delta.text, ended=ended)
        self._waiting += self._reader.tokens(delta.logprobs, ended=ended)
        yield from self._of_text(content, begins=bool(content) or (ended and not calls))
        for chunk in calls:
            index, more = chunk["index"], chunk["function"]["arguments"]
            known = self._of_calls.get(index)
            part = known or self._begin(self._reader.calls[index])
            self._of_calls[index] = part
            yield PartNews(part=part, begins=known is None, more=more)

    @property
    def has_calls(self) -> bool:
        """Whether tools are called."""
        return bool(self._of_calls)

    @property
    def is_cut(self) -> bool:
        """Whether the last part is a call that lacks its end."""
        last = self.all[-1].call if self.all else None
        return last is not None and not last.is_whole

    def _of_text(self, content: str, *, begins: bool) -> Iterator[PartNews]:
        begins = begins and not self.all
        if begins:
            self._begin(None)
        if not self.all or self.all[0].call is not None:
            return
        part, logprobs = self.all[0], self._waiting
        if begins or content or logprobs:
            self._waiting = []
            part.text += content
            part.logprobs += logprobs
            yield PartNews(part=part, begins=begins, more=content, logprobs=logprobs)

    def _begin(self, call: CallText | None) -> Part:
        part = Part(len(self.all), call)
        self.all.append(part)
        return part

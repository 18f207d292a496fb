"""A choice of an answer while it grows: its updates and its result added up."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from models.requests.request import Result, TokenLogprob
from models.requests.update import Update
from pipelines.serve.api_error import ApiError, failed


@dataclass(slots=True)
class Delta:
    """What a choice has gained in one step; `finish_reason` with the last one."""

    index: int
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    offset: int = 0  # characters of the choice's text before this delta
    finish_reason: str | None = None
    updates: list[Update] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()  # with the last one, if asked for

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send yet: text may be held back."""
        return not (self.text or self.logprobs or self.finish_reason)


@dataclass(slots=True)
class AnswerChoice:
    """`add` what came; `whole` is everything so far. `muted`: generated tokens are left out."""

    index: int
    muted: bool = False
    whole: Delta = field(init=False)
    result: Result | None = None

    def __post_init__(self) -> None:
        self.whole = Delta(self.index)

    def add(self, items: Iterable[Update | Result]) -> Delta:
        """The delta that these make. Raises ApiError if the request ended with an error."""
        delta = Delta(self.index, offset=len(self.whole.text))
        for item in items:
            if isinstance(item, Result):
                delta.finish_reason = self._end(item)
                delta.prompt_logprobs = item.prompt_logprobs or ()
            elif not self.muted:
                delta.text += item.text or ""
                delta.updates.append(item)
                delta.logprobs += item.logprobs or ()
        self.whole.text += delta.text
        self.whole.logprobs += delta.logprobs
        self.whole.finish_reason = delta.finish_reason
        self.whole.prompt_logprobs = delta.prompt_logprobs
        return delta

    def _end(self, result: Result) -> str:
        self.result = result
        if result.finish_reason not in ("stop", "length"):
            if result.invalid:
                raise ApiError(str(result.error), code="cannot_be_generated")
            raise failed(result.error or f"the request was {result.finish_reason}")
        return "length" if self.muted else result.finish_reason

    @property
    def num_tokens(self) -> int:
        """Generated tokens, that which ended the choice included."""
        return len(self.result.tokens) if self.result and not self.muted else 0

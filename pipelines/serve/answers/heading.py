"""What every answer begins with, and what writes one: whole, or as server-sent events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.serve.answers.choice import AnswerChoice, Delta
from pipelines.serve.api_error import ApiError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """`prompt_tokens`: each prompt counts once, however many choices it has.

    `limit`: the tokens that the answer may have, where the body does not say. `repeats`: whether it
    can be made again: only then do its events have ids.
    """

    id: str
    created: int
    model: str
    fingerprint: str
    seed: int
    prompt_tokens: int
    n: int = 1  # choices of each prompt
    has_prediction: bool = False
    limit: int | None = None
    repeats: bool = True

    @property
    def key(self) -> str:
        """The part of the id that all names in the answer share."""
        return self.id.partition("-")[2]

    def cached_tokens(self, choices: Sequence[AnswerChoice]) -> int:
        """Prompt tokens that were in the KV cache, for the first choice of each prompt."""
        firsts = [choice.result for choice in choices[:: self.n]]
        return sum(result.cached_tokens for result in firsts if result is not None)

    def predicted(self, choices: Sequence[AnswerChoice]) -> Json:
        """What became of the tokens of a body's `prediction`; without one, nothing."""
        if not self.has_prediction:
            return {}
        results = [choice.result for choice in choices if choice.result is not None]
        return {
            "accepted_prediction_tokens": sum(result.predicted for result in results),
            "rejected_prediction_tokens": sum(result.mispredicted for result in results),
        }


class Writer(Protocol):
    """An answer's form. Of a stream, `opening` comes first, `news` for each delta, then an end."""

    def whole(self, choices: Sequence[AnswerChoice]) -> Json: ...
    def opening(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]: ...
    def news(self, delta: Delta) -> Iterator[bytes]: ...
    def closing(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]: ...
    def failure(self, error: ApiError) -> Iterator[bytes]: ...

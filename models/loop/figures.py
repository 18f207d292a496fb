"""Counts and times of a token loop."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import accumulate, zip_longest
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Sums over rounds. Seconds are wall-clock time of the loop's thread.

    `tokens` are those generated here. `prompt_tokens` were read in prefill: prompts, and tokens
    that requests have generated elsewhere.
    """

    rounds: int = 0
    round_rows: int = 0  # requests decoded, summed over rounds
    target_passes: int = 0
    prefill_passes: int = 0
    draft_passes: int = 0
    tokens: int = 0
    prompt_tokens: int = 0  # read in prefill, those of requests that gave way again
    prefix_hit_tokens: int = 0  # of prompts, already in the cache and not read
    preemptions: int = 0  # requests that gave way to others when the cache was full
    drafted: int = 0
    accepted: int = 0
    drafted_by_position: tuple[int, ...] = ()  # requests that had a draft this deep
    accepted_by_position: tuple[int, ...] = ()
    draft_s: float = 0.0
    transfer_s: float = 0.0
    score_s: float = 0.0
    verify_s: float = 0.0
    other_s: float = 0.0
    prefill_s: float = 0.0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{f.name: _sum(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        )

    @property
    def accepted_length(self) -> float:
        """Mean tokens a request gains per round, the bonus token included."""
        return self.tokens / self.round_rows if self.round_rows else 0.0

    @property
    def acceptance_by_position(self) -> tuple[float, ...]:
        """By depth: of the requests with a draft this deep, the share that accepted this depth."""
        pairs = zip(self.accepted_by_position, self.drafted_by_position, strict=True)
        return tuple(accepted / max(drafted, 1) for accepted, drafted in pairs)

    def round_ms(self) -> dict[str, float]:
        """Mean milliseconds of a round and of its parts."""
        parts = {
            name: 1e3 * getattr(self, f"{name}_s") / max(self.rounds, 1)
            for name in ("draft", "transfer", "score", "verify", "other")
        }
        return {"round": sum(parts.values()), **parts}


def _sum(a: Any, b: Any) -> Any:
    """The sum of two numbers, or of two tuples element by element."""
    if isinstance(a, tuple):
        return tuple(x + y for x, y in zip_longest(a, b, fillvalue=0))
    return a + b


class Sums:
    """Counters that `figures` turns into Figures."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._depths: Counter[int] = Counter()  # drafts by their depth
        self._accepted: Counter[int] = Counter()  # drafts by the number of accepted levels

    def add(self, **values: int) -> None:
        """Add to counters, by the names of Figures' fields."""
        sums = self._sums
        for name, value in values.items():
            sums[name] += value

    def add_draft(self, nodes: int, depth: int, accepted: int) -> None:
        """Count a request's draft, of which the first `accepted` levels were accepted."""
        self.add(drafted=nodes, accepted=accepted)
        self._depths[depth] += 1
        self._accepted[accepted] += 1

    def figures(self, seconds: Mapping[str, float]) -> Figures:
        """The counts so far, with `seconds` by field name."""
        deepest = max(self._depths, default=0)
        return Figures(
            **self._sums,
            **seconds,  # type: ignore[arg-type]
            drafted_by_position=_reaching(self._depths, deepest),
            accepted_by_position=_reaching(self._accepted, deepest),
        )


def _reaching(levels: Counter[int], deepest: int) -> tuple[int, ...]:
    """How many drafts have level 1, 2, ... `deepest`, given how many have so many levels."""
    counts = [levels[level] for level in range(deepest, 0, -1)]
    return tuple(accumulate(counts))[::-1]

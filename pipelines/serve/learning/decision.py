"""Whether a trained drafter takes over: better on held-out requests, by more than the noise."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ERRORS = 2.0  # standard errors of the mean gain that it must exceed
LEAST_GAIN = 0.01  # of the present length: a change makes running requests read their prompts again


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Mean tokens per round with either drafter, and the standard error of their difference."""

    present: float
    new: float
    error: float
    held_out: int  # requests

    @property
    def is_better(self) -> bool:
        """Whether the new drafter takes over."""
        gain = self.new - self.present
        return gain > max(ERRORS * self.error, LEAST_GAIN * self.present)


def decide(present: Sequence[float], new: Sequence[float]) -> Decision:
    """From tokens per round of the same requests, two or more, with either drafter."""
    gains = [after - before for before, after in zip(present, new, strict=True)]
    return Decision(
        present=statistics.fmean(present),
        new=statistics.fmean(new),
        error=statistics.stdev(gains) / math.sqrt(len(gains)),
        held_out=len(gains),
    )

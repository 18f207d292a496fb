"""What the laws foresee of a run in the real loop: training and decoding must agree.

Under `match`, a run's tokens are the target's whatever the drafter is. So the laws of target and
drafter on just these tokens say how many rounds the run takes: exactly at temperature 0, in the
mean and with a known variance at temperature 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.metrics.rounds import rounds_of

DEVIATIONS = 4.0  # of the number of rounds that chance explains
ROUNDED = 0.02  # of the rounds that rounding explains: where two tokens are nearly as likely


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """The rounds of texts by the laws: their mean, and its standard deviation."""

    tokens: int
    rounds: float
    deviation: float

    @property
    def length(self) -> float:
        """Tokens per round."""
        return self.tokens / self.rounds

    def agrees(self, rounds: int) -> bool:
        """Whether a run that took so many rounds is explained."""
        explained = DEVIATIONS * self.deviation + ROUNDED * self.rounds + 1
        return abs(rounds - self.rounds) <= explained


def foreseen(chances: torch.Tensor, written: Sequence[slice]) -> Foreseen:
    """Of several texts.

    Args:
        chances: [B, N, K] of drafts, by the place of a chain's first token.
        written: [B] the places that the run wrote.
    """
    each = [rounds_of(own[places]) for own, places in zip(chances, written, strict=True)]
    means, variances = zip(*each, strict=True)
    return Foreseen(
        tokens=sum(places.stop - places.start for places in written),
        rounds=sum(means),
        deviation=sum(variances) ** 0.5,
    )

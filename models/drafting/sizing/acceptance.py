"""How often each level of a draft is right, and how many tokens to expect of a round."""

from collections.abc import Iterable
from math import log2

MEMORY = 0.99  # weight of a level's past at each new trial: about the last 100 count
FADES = 0.9  # weight of what was seen at each choice while other shapes are played
PRIOR_RATE = 0.6  # of a level before anything was seen
PRIOR_TRIALS = 5.0  # what a prior rate counts for


class Acceptance:
    """Decayed counts by level: where all levels before it were right, how often was this one?

    A draft that was right as far as it was asked for says nothing of deeper levels.
    """

    def __init__(self, depth: int) -> None:
        self._trials, self._hits = [0.0] * depth, [0.0] * depth

    def observe(self, right: int, tried: int) -> None:
        """The first `right` levels were right; `tried` is one more if the next was not."""
        trials, hits = self._trials, self._hits
        for level in range(tried):
            trials[level] = MEMORY * trials[level] + 1
            hits[level] = MEMORY * hits[level] + (level < right)

    def fade(self) -> None:
        """Forget a little: a shape that had bad luck and is not played gets another chance."""
        self._trials = [FADES * count for count in self._trials]
        self._hits = [FADES * count for count in self._hits]

    def rates(self, priors: Iterable[float] = ()) -> list[float]:
        """By level, shrunk towards `priors`; without them, towards the level before."""
        rate, expected, found = PRIOR_RATE, iter(priors), []
        for hits, trials in zip(self._hits, self._trials, strict=True):
            rate = (hits + PRIOR_TRIALS * next(expected, rate)) / (trials + PRIOR_TRIALS)
            found.append(rate)
        return found


def widen(rate: float, fan: float) -> float:
    """The rate of a tree's level with `fan` guesses, from a chain's: fitted to the demo pair."""
    return float(1 - (1 - rate) ** (1.1 + 0.28 * log2(fan)))


def expected_tokens(rates: Iterable[float]) -> float:
    """Of a round, its bonus token included: a level counts if all before it were right."""
    tokens = alive = 1.0
    for rate in rates:
        alive *= rate
        tokens += alive
    return tokens

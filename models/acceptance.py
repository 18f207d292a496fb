"""What comes of drafts: how often guesses are right, how many come, how many tokens to expect.

Expected tokens of a draft of depth d whose next level holds the target's choice with chance a:
(1 - a^(d+1)) / (1 - a) (Leviathan et al. 2023, section 3).
"""

from dataclasses import dataclass
from math import log2
from typing import TypeVar

from models.batch import Floats
from models.costs import Ratio

PRIOR_TRIALS = 6.0  # weight of what all requests together have shown
MOST_SURE = 0.999  # chance of a right guess

Rate = TypeVar("Rate", float, Floats)


@dataclass(slots=True)
class Acceptance:
    """Decayed counts of positions drafted and positions right."""

    trials: float = 0.0
    hits: float = 0.0

    def observe(self, trials: float, hits: float, decay: float) -> None:
        self.forget(decay)
        self.trials, self.hits = self.trials + trials, self.hits + hits

    def forget(self, decay: float) -> None:
        """Let what was seen count less."""
        self.trials, self.hits = decay * self.trials, decay * self.hits

    def rate(self, prior: float) -> float:
        """Chance that the next position is right, shrunk towards `prior`."""
        return (self.hits + PRIOR_TRIALS * prior) / (self.trials + PRIOR_TRIALS)


class Supply:
    """How much of what is asked for comes: a drafter may have no guess, or a short one."""

    def __init__(self) -> None:
        self._comes = Ratio(1.0, window=256)  # share of requests that get any draft
        self._depths: dict[int, Ratio] = {}  # by depth asked for: that of the drafts that came

    def observe(self, asked: int, given: int) -> None:
        """A draft of `asked` levels was wanted, `given` came."""
        self._comes.observe(float(given > 0))
        if given:
            seen = self._depths.setdefault(asked, Ratio(float(asked), prior=0, window=256))
            seen.observe(given)

    @property
    def comes(self) -> float:
        return self._comes.value

    def depth(self, asked: int) -> float:
        """Of the drafts that come where `asked` levels are wanted."""
        if asked in self._depths:
            return self._depths[asked].value
        deeper = [d for d in self._depths if d > asked]
        if deeper:
            return min(asked, self._depths[min(deeper)].value)
        most = max(self._depths, default=0)
        cut_short = most and self._depths[most].value < 0.9 * most
        return self._depths[most].value if cut_short else asked


def expected_tokens(rate: Rate, depth: Rate) -> Rate:
    """Tokens a round yields, the bonus token included, of a rate under 1; arrays or numbers."""
    expected: Rate = (1 - rate ** (depth + 1)) / (1 - rate)
    return expected


def spread(fan: float) -> float:
    """How many independent guesses a level of `fan` guesses is worth, roughly.

    Later ones hold less; that a tree spends them where it is in doubt is worth a tenth. Fitted to
    trees of 5 to 16 nodes, 3 to 6 deep.
    """
    return 1.0 if fan <= 1 else 1.1 + 0.28 * log2(fan)


def widen(rate: float, fan: float) -> float:
    """The chance of a level of `fan` guesses, from that of a chain."""
    return float(1 - (1 - rate) ** spread(fan))


def narrow(rate: float, fan: float) -> float:
    """The chance of a chain, from that of a level of `fan` guesses."""
    return float(1 - (1 - rate) ** (1 / spread(fan)))

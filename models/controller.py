"""How much to draft: chosen each round from measured costs and tracked acceptance.

Expected tokens of a draft of depth d whose next level holds the target's choice with chance a:
(1 - a^(d+1)) / (1 - a) (Leviathan et al. 2023, section 3). The size with the most expected tokens
per second wins; drafting nothing is one of the sizes.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.costs import PassCost
from models.draft import NOTHING, Shape
from models.sequence import Sequence

DECAY = 0.97  # of a request's acceptance counts, per round
PRIOR_TRIALS = 6.0  # weight of what all requests together have shown
REPLAN_ROUNDS = 8
MIN_GAIN = 1.03  # drafting must promise this much, or it is not begun
FIRST_PROBE, LAST_PROBE = 32, 1024  # rounds without drafting before it is tried again


@dataclass(slots=True)
class Acceptance:
    """Decayed counts of positions drafted and positions right, for chains and for trees."""

    trials: float = 0.0
    hits: float = 0.0

    def observe(self, trials: float, hits: float, decay: float) -> None:
        self.trials = decay * self.trials + trials
        self.hits = decay * self.hits + hits

    def rate(self, prior: float) -> float:
        """Chance that the next position is right, shrunk towards `prior`."""
        return (self.hits + PRIOR_TRIALS * prior) / (self.trials + PRIOR_TRIALS)


class FixedSize:
    """The user's own choice of size, every round."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def plan(self, sequences: Several[Sequence]) -> tuple[Shape, list[int]]:
        """The shape of this round and which sequences (indices) draft."""
        return self._shape, list(range(len(sequences))) if self._shape.depth else []

    def observe(self, sequence: Sequence, shape: Shape, depth: int, accepted: int) -> None:
        """Nothing to learn."""

    def observe_draft(self, shape: Shape, rows: int, seconds: float) -> None:
        """Nothing to learn."""

    def observe_score(self, nodes: int, seconds: float) -> None:
        """Nothing to learn."""

    def observe_other(self, seconds: float) -> None:
        """Nothing to learn."""

    def forget(self, request_id: str) -> None:
        """Nothing to forget."""


class Controller:
    """Picks the size that is fastest here and now."""

    def __init__(self, score: PassCost, draft: PassCost | None, *, max_width: int) -> None:
        """`draft` is the cost of one pass of the draft model; None where drafting runs no model."""
        self._score, self._draft = score, draft
        self._shapes = menu(max_width, deep=draft is None)
        self._all: dict[int, Acceptance] = {}  # by width
        self._each: dict[str, dict[int, Acceptance]] = {}
        self._overhead = 3e-4  # seconds of a round beside the passes
        self._chosen, self._age = NOTHING, REPLAN_ROUNDS
        self._members: tuple[str, ...] = ()
        self._idle, self._probe = 0, FIRST_PROBE
        self._probing = False

    def plan(self, sequences: Several[Sequence]) -> tuple[Shape, list[int]]:
        """The shape of this round and which sequences (indices) draft."""
        members = tuple(s.id for s in sequences)
        self._age += 1
        if self._age >= REPLAN_ROUNDS or members != self._members:
            self._chosen, self._age, self._members = self._best(sequences), 0, members
        shape = self._chosen
        self._probing = False
        if shape.depth == 0:
            shape = self._maybe_probe()
        else:
            self._idle, self._probe = 0, FIRST_PROBE
        if shape.depth == 0:
            return shape, []
        return shape, self._worth(sequences, shape)

    def _maybe_probe(self) -> Shape:
        """Now and then, ever more rarely, try the smallest draft: the text may have changed."""
        self._idle += 1
        if self._idle < self._probe:
            return NOTHING
        self._idle, self._probe = 0, min(2 * self._probe, LAST_PROBE)
        self._age, self._probing = REPLAN_ROUNDS, True  # decide anew after it
        return Shape(depth=2)

    def _best(self, sequences: Several[Sequence]) -> Shape:
        rows = len(sequences)
        plain = rows / (self._score(rows) + self._overhead)
        best, speed = NOTHING, plain * MIN_GAIN
        rates: dict[int, NDArray[np.float64]] = {}
        for shape in self._shapes:
            if shape.width not in rates:
                rates[shape.width] = self._rates(sequences, shape.width)
            tokens = expected_tokens(rates[shape.width], shape.depth).sum()
            now = float(tokens) / self._seconds(shape, rows)
            if now > speed:
                best, speed = shape, now
        return best

    def _seconds(self, shape: Shape, rows: int) -> float:
        nodes = rows * (1 + shape.budget)
        return self._score(nodes) + self._draft_seconds(shape, rows) + self._overhead

    def _draft_seconds(self, shape: Shape, rows: int) -> float:
        if self._draft is None:
            return 0.0
        # The first pass reads what was committed (two tokens or so), the others a level each.
        return self._draft(2 * rows) + (shape.depth - 1) * self._draft(shape.width * rows)

    def _worth(self, sequences: Several[Sequence], shape: Shape) -> list[int]:
        """Leave out requests whose guesses cost the batch more than they bring it."""
        rows = len(sequences)
        if rows == 1 or self._probing:
            return list(range(rows))
        gain = expected_tokens(self._rates(sequences, shape.width), shape.depth) - 1  # [B]
        dearer = self._seconds(shape, rows) - self._score(rows) - self._overhead
        speed = float(gain.sum() + rows) / self._seconds(shape, rows)
        return [b for b in range(rows) if gain[b] >= speed * dearer / rows * 0.5]

    def _rates(self, sequences: Several[Sequence], width: int) -> NDArray[np.float64]:
        """[B] chance that a level of this width holds each request's next token."""
        common = self._common(width)
        mine = [self._each.get(s.id, {}).get(width) for s in sequences]
        return np.array([common if a is None else a.rate(common) for a in mine])

    def _common(self, width: int) -> float:
        """Over all requests; a width not tried yet is inferred from those that were."""
        tried = self._all.get(width)
        known = {w: a for w, a in self._all.items() if a.trials >= 1}
        if not known:
            return widen(0.6, width)
        nearest = min(known, key=lambda w: abs(np.log2(w) - np.log2(width)))
        base = known[nearest].rate(widen(0.6, nearest))
        inferred = 1 - (1 - base) ** (spread(width) / spread(nearest))
        return tried.rate(inferred) if tried is not None else inferred

    def observe(self, sequence: Sequence, shape: Shape, depth: int, accepted: int) -> None:
        """A draft of `depth` levels had its first `accepted` right."""
        trials = float(min(accepted + 1, depth))
        common = self._all.setdefault(shape.width, Acceptance())
        common.observe(trials, accepted, 0.995)
        mine = self._each.setdefault(sequence.id, {}).setdefault(shape.width, Acceptance())
        mine.observe(trials, accepted, DECAY)

    def observe_draft(self, shape: Shape, rows: int, seconds: float) -> None:
        """A proposal for `rows` requests took `seconds`."""
        if self._draft is not None:
            expected = self._draft_seconds(shape, rows)
            nodes = shape.width * rows
            self._draft.observe(nodes, self._draft(nodes) * seconds / expected)

    def observe_score(self, nodes: int, seconds: float) -> None:
        """A target pass over `nodes` nodes took `seconds`."""
        self._score.observe(nodes, seconds)

    def observe_other(self, seconds: float) -> None:
        """The rest of a round took `seconds`."""
        self._overhead += 0.05 * (min(seconds, 4 * self._overhead) - self._overhead)

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        self._each.pop(request_id, None)


def expected_tokens(rates: NDArray[np.float64], depth: int) -> NDArray[np.float64]:
    """[B] tokens a round yields, the bonus token included."""
    rates = np.minimum(rates, 0.999)
    out: NDArray[np.float64] = (1 - rates ** (depth + 1)) / (1 - rates)
    return out


def spread(width: int) -> float:
    """How many independent guesses a level of `width` is worth, roughly: later ones hold less."""
    return float(1 + 0.33 * np.log2(width))


def widen(rate: float, width: int) -> float:
    """The chance of a level of `width`, from that of a chain."""
    return float(1 - (1 - rate) ** spread(width))


def menu(max_width: int, *, deep: bool) -> list[Shape]:
    """The sizes to choose from. `deep`: guesses cost nothing to make, so long chains may pay."""
    chains = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32) if deep else (1, 2, 3, 4, 5, 6, 8)
    shapes = [Shape(depth=d) for d in chains]
    for width in (2, 4, 8):
        if width <= max_width:
            shapes += [Shape(depth=d, width=width) for d in (2, 3, 4, 5, 6, 8) if d * width <= 64]
    return shapes

"""How much to draft: chosen each round from measured costs and tracked acceptance.

The size with the most expected tokens per second wins; drafting nothing is one of the sizes.
"""

from collections.abc import Sequence as Several
from math import inf
from typing import cast

import numpy as np

from models.acceptance import MOST_SURE, Acceptance, Supply, expected_tokens, narrow, widen
from models.costs import PassCost, Ratio, RoundCost
from models.draft import NOTHING, Shape
from models.menu import menu
from models.sequence import Sequence

DECAY = 0.97  # of a request's acceptance counts, per round
FIRST_GUESS, FIRST_GUESS_TRIALS = 0.6, 2.0  # a chain's rate before anything was seen
FIRST_TRIALS = 8  # guesses judged before a size is chosen
FIRST_REPLAN, LAST_REPLAN = 4, 64  # rounds between two looks at all sizes
PLAIN_ROUNDS = 2  # seen before any drafting: what it is compared with
FIRST_COMPARE, LAST_COMPARE = 4, 64  # drafting rounds until a plain one: is it still as slow?
MIN_GAIN = 1.05  # drafting must promise this much: what it costs is known no better
STICKS = 1.03  # another size must promise this much more than the present one
FIRST_PROBE, LAST_PROBE = 32, 1024  # rounds without drafting before it is tried again
SEEN_IDLE = 4  # of so many rounds without drafting one is timed
PROBED = 4  # of so many requests then one has a draft


class Controller:
    """Picks the size that is fastest here and now."""

    def __init__(self, score: PassCost, draft: PassCost | None, *, max_width: int) -> None:
        """`draft` is the cost of one pass of the draft model; None where drafting runs no model."""
        self._cost = RoundCost(score, draft)
        self._shapes = menu(max_width, deep=draft is None)
        self._fans = [shape.fan for shape in self._shapes]
        self._all: dict[float, Acceptance] = {}  # by fan
        self._each: dict[str, dict[float, Acceptance]] = {}
        self._supply = Supply()
        # Drafts that no model makes end where they are no use: asking for much costs nothing.
        self._first = Shape(depth=8 if draft is None else 2)
        self._chosen, self._rows = NOTHING, 0
        self._age = self._patience = FIRST_REPLAN
        self._idle, self._probe = 0, FIRST_PROBE
        self._yields: dict[Shape, Ratio] = {}  # tokens of a round, seen over expected
        self._expected = 1.0  # tokens of the round that is under way
        self._drafted, self._compare = 0, FIRST_COMPARE  # rounds since a plain one, until the next
        self._probing = self._resting = False
        self._asked = 0  # requests in probes so far
        self._tried = False

    def plan(self, sequences: Several[Sequence]) -> tuple[Shape, list[int]]:
        """The shape of this round and which sequences (indices) draft."""
        rows = len(sequences)
        self._resting = self._rests(rows)
        if self._resting:
            return NOTHING, []
        if self._cost.count(NOTHING, rows) < PLAIN_ROUNDS:
            self._drafted = 0
            return NOTHING, []
        if self._drafted >= self._compare:  # soon at first: a job's first rounds are its slowest
            self._drafted, self._compare = 0, min(2 * self._compare, LAST_COMPARE)
            return NOTHING, []
        self._age += 1
        if self._age >= self._patience or rows != self._rows:
            self._choose(sequences)
        shape = self._chosen
        self._probing = self._untried
        if shape.depth == 0:
            shape = self._maybe_probe(rows)
        else:
            self._idle, self._probe = 0, FIRST_PROBE
        if shape.depth == 0:
            return shape, []
        self._drafted += 1
        return shape, self._worth(sequences, shape)

    def _rests(self, rows: int) -> bool:
        """Whether nothing was chosen for so many rows, and it is not yet time to look again."""
        look = self._age + 1 >= self._patience or self._idle + 1 >= self._probe
        if look or self._chosen.depth or rows != self._rows:
            return False
        self._age, self._idle = self._age + 1, self._idle + 1
        return True

    def _choose(self, sequences: Several[Sequence]) -> None:
        """Weigh all sizes; ever more rarely while the same one stays the best."""
        best, rows = self._best(sequences), len(sequences)
        same = best == self._chosen and rows == self._rows
        longer, shorter = 2 * self._patience, self._patience // 2
        self._patience = min(longer, LAST_REPLAN) if same else max(shorter, FIRST_REPLAN)
        self._chosen, self._age, self._rows = best, 0, rows

    def _maybe_probe(self, rows: int) -> Shape:
        """Now and then, ever more rarely, try the smallest draft: the text may have changed."""
        self._idle += 1
        if self._idle < self._probe:
            return NOTHING
        self._idle, self._probe = 0, min(2 * self._probe, LAST_PROBE)
        if not self._could_pay(rows):
            return NOTHING
        self._age, self._probing = LAST_REPLAN, True  # decide anew after it
        return self._first

    def _could_pay(self, rows: int) -> bool:
        """Whether any size would, were all its guesses right."""
        plain = self._cost(NOTHING, rows, rows)
        return any(
            (1 + shape.depth) * plain > MIN_GAIN * self._seconds(shape, rows, plain)
            for shape in self._shapes
        )

    @property
    def _untried(self) -> bool:
        """Whether too little was seen to choose by."""
        if not self._tried:
            self._tried = sum(seen.trials for seen in self._all.values()) >= FIRST_TRIALS
        return not self._tried

    def _best(self, sequences: Several[Sequence]) -> Shape:
        rows = len(sequences)
        if self._untried:
            return self._first
        plain = self._cost(NOTHING, rows, rows)
        best, speed, least = NOTHING, 0.0, rows / plain * MIN_GAIN
        for shape, gain in zip(self._shapes, self._all_gains(sequences), strict=True):
            now = (rows + gain) / self._seconds(shape, rows, plain) * self._yield(shape)
            kept = STICKS if shape == self._chosen else 1.0
            if now >= least and now * kept > speed:
                best, speed = shape, now * kept
        return best

    def _yield(self, shape: Shape) -> float:
        known = self._yields.get(shape)
        return 1.0 if known is None else known.value

    def _all_gains(self, sequences: Several[Sequence]) -> list[float]:
        """[S] tokens that a draft of each shape brings all requests, beside their bonus tokens."""
        chain = self._chain_rate()
        by_fan = {fan: self._rates(sequences, fan, chain) for fan in dict.fromkeys(self._fans)}
        rates = np.array([by_fan[fan] for fan in self._fans])  # [S, B]
        depths = np.array([[self._supply.depth(shape.depth)] for shape in self._shapes])
        gains = self._supply.comes * (expected_tokens(rates, depths) - 1)
        return cast(list[float], gains.sum(1).tolist())

    def _seconds(self, shape: Shape, rows: int, plain: float) -> float:
        """Of a round in which all rows ask for this shape: in some of them no draft comes."""
        comes, depth = self._supply.comes, self._supply.depth(shape.depth)
        nodes = rows * (1 + shape.budget * depth / shape.depth)
        drafted = self._cost.beside(plain, shape, rows, nodes)
        if comes == 1:
            return drafted
        return comes * drafted + (1 - comes) * self._cost.beside(plain, shape, rows, rows)

    def _worth(self, sequences: Several[Sequence], shape: Shape) -> list[int]:
        """Leave out requests whose guesses cost the batch more than they bring it."""
        rows, least = len(sequences), -inf
        depth, comes = self._supply.depth(shape.depth), self._supply.comes
        rates = self._rates(sequences, shape.fan, self._chain_rate())
        gains = [comes * (expected_tokens(rate, depth) - 1) for rate in rates]
        if rows > 1 and not self._probing:
            plain = self._cost(NOTHING, rows, rows)
            seconds = self._seconds(shape, rows, plain)
            dearer = seconds - plain
            least = 0.5 * (sum(gains) + rows) / seconds * dearer / rows
        worth = [b for b, gain in enumerate(gains) if gain >= least]
        for b in set(range(rows)).difference(worth):
            # What they showed is slowly forgotten, so that they get another chance.
            for seen in self._each.get(sequences[b].id, {}).values():
                seen.forget(DECAY)
        if self._probing:
            worth = self._some(worth)
        self._expected = rows + sum(gains[b] for b in worth)
        return worth

    def _some(self, worth: list[int]) -> list[int]:
        """As many as will give drafts to one in PROBED: they tell as much, and cost less.

        In turn: guesses may be right for one request and for no other.
        """
        count = max(1, round(len(worth) / PROBED / max(self._supply.comes, 1 / PROBED)))
        first = self._asked % len(worth)
        self._asked += count
        return sorted((worth[first:] + worth[:first])[:count])

    def _rates(self, sequences: Several[Sequence], fan: float, chain: float) -> list[float]:
        """[B] chance that a level with so many guesses holds each request's next token.

        What the request has shown, shrunk towards what all have with this fan, and that towards
        what is inferred from a chain's rate.
        """
        common, tried = widen(chain, fan), self._all.get(fan)
        if tried is not None:
            common = tried.rate(common)
        mine = [self._each.get(s.id, {}).get(fan) for s in sequences]
        rates = (common if a is None else a.rate(common) for a in mine)
        return [min(rate, MOST_SURE) for rate in rates]

    def _chain_rate(self) -> float:
        """A chain's chance of a right guess, as all fans together show it."""
        hits, trials = FIRST_GUESS_TRIALS * FIRST_GUESS, FIRST_GUESS_TRIALS
        for fan, seen in self._all.items():
            if seen.trials:
                hits += seen.trials * narrow(seen.hits / seen.trials, fan)
                trials += seen.trials
        return hits / trials

    def observe(self, sequence: Sequence, shape: Shape, depth: int, accepted: int) -> None:
        """A draft of `depth` levels, maybe none, had its first `accepted` right.

        A tree that is not as deep as was asked chose so: the levels that it lacks count as tried,
        unless the request has ended, which is told before.
        """
        if depth and shape.width > 1 and sequence.finish_reason is None:
            depth = shape.depth
        self._supply.observe(shape.depth, depth)
        if depth == 0:
            return
        trials, fan = float(min(accepted + 1, depth)), shape.fan
        common = self._all.setdefault(fan, Acceptance())
        common.observe(trials, accepted, 0.995)
        mine = self._each.setdefault(sequence.id, {}).setdefault(fan, Acceptance())
        mine.observe(trials, accepted, DECAY)

    def observe_round(
        self, shape: Shape, rows: int, nodes: int, tokens: int, seconds: float
    ) -> None:
        """A round of `rows` requests and `nodes` scored nodes gave `tokens` in `seconds`."""
        if self._resting and self._idle % SEEN_IDLE:
            return
        self._cost.observe(shape, rows, nodes, seconds)
        if shape.depth:
            seen = self._yields.setdefault(shape, Ratio(1.0, prior=16, window=128))
            seen.observe(tokens / self._expected)

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        self._each.pop(request_id, None)

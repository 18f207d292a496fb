"""How much to draft: the shape that is measured to bring the most tokens per second.

A bandit over the shapes of `menu`. A shape's speed is the tokens to expect of its rounds
(`Acceptance`) over what they cost here (`Costs`, by size of the batch). The fastest is played; now
and then another gets a look of a few rounds: first those not tried yet that may be faster, from
small to large, then the others in turn, ever more rarely. A look waits while earlier ones have lost
more than a share of the time (`Loss`).
"""

from models.drafting.draft import NOTHING, Shape
from models.drafting.sizing.acceptance import Acceptance, expected_tokens, widen
from models.drafting.sizing.costs import Costs
from models.drafting.sizing.menu import menu

MIN_GAIN = 1.05  # drafting must promise so much over not drafting, for what is not measured
LOOK = 2  # timed rounds of a look
FIRST, LAST = 3, 256  # rounds between two looks: at first; at most, a quarter of it if it drafts
DECIDE = 16  # rounds after which the choice is made anew from what is known
FAR = 0.9  # of plain decoding's speed: if drafting is slower, its looks are cheap probes
PROBED = 8  # one of so many requests drafts in a probe
LOSS = 0.05  # of all time, what looks may lose before the next one waits
HELD_UP = 8  # times as long as its tokens are worth: beyond, it is not the look that took the time


class Knowledge:
    """What is known about rounds with about the same number of requests."""

    def __init__(self) -> None:
        self.costs = Costs()
        self.patience = self.wait = FIRST  # rounds between two looks; left until the next
        self.played = {NOTHING: 0}  # the last round of each shape

    def end_look(self, *, won: bool) -> None:
        """Look again sooner if the other shape was faster, later if not."""
        plain = self.costs.chosen == NOTHING
        longer = min(2 * self.patience, LAST) if plain else min(self.patience * 3 // 2, LAST // 4)
        self.patience = max(self.patience // 2, FIRST) if won else longer


class Loss:
    """The time that looks took beyond what their tokens cost in rounds of the chosen shape."""

    def __init__(self) -> None:
        self._seconds = self._lost = 0.0
        self._pace = 0.0  # seconds per token of the chosen shape, decayed

    def observe(self, seconds: float, tokens: int, *, look: bool) -> None:
        """Book a round."""
        self._seconds += seconds
        if look:
            worth = tokens * self._pace
            self._lost = max(0.0, self._lost + min(seconds, HELD_UP * worth) - worth)
        else:
            pace = seconds / tokens
            self._pace += (pace - self._pace) * (0.1 if self._pace else 1.0)

    @property
    def high(self) -> bool:
        """Whether the next look has to wait."""
        return self._lost > LOSS * self._seconds


class Controller:
    """Implements models.drafting.sizing.sizing.Sizing."""

    def __init__(self, *, max_width: int, free: bool, lag: int = 0) -> None:
        """`free`: guesses cost nothing. `lag`: rounds until drafts follow a change of shape."""
        self._shapes, self._lag = menu(max_width, free=free), lag
        self._chains = Acceptance(max(shape.depth for shape in self._shapes))
        self._seen = {s: Acceptance(s.depth) if s.width > 1 else self._chains for s in self._shapes}
        self._batches: dict[int, Knowledge] = {}  # by bits of the number of requests
        self._batch, self._scale, self._round = Knowledge(), 0, 0
        self._shape, self._left, self._unsettled = NOTHING, 0, 0
        self._probing = False  # few requests draft: acceptance is measured, costs are not
        self._loss, self._tokens = Loss(), 0  # tokens of this round

    def plan(self, rows: int) -> tuple[Shape, list[int]]:
        """The shape of this round and which requests (indices) draft."""
        self._round, self._tokens = self._round + 1, rows
        if rows.bit_length() != self._scale:
            self._enter(rows.bit_length())
        elif self._left <= 0:
            self._turn()
        self._left -= 1
        every = min(rows, PROBED) if self._probing else 1
        drafting = range(self._round % every, rows, every) if self._shape.depth else ()
        return self._shape, list(drafting)

    def observe(self, given: int, right: int, *, ended: bool) -> None:
        """A request's draft had `given` levels, of which the first `right` were right."""
        self._tokens += right
        if self._unsettled and self._lag:
            return  # it is of the shape before
        cut = right == given and (ended or given == self._shape.depth)
        self._seen[self._shape].observe(right, right if cut else right + 1)

    def observe_round(self, seconds: float) -> None:
        """The round took so long; one in which a draft model had to catch up is not counted."""
        look = self._shape != self._batch.costs.chosen
        self._loss.observe(seconds, self._tokens, look=look)
        if self._unsettled:
            self._unsettled -= 1
        elif not self._probing:
            self._batch.costs.observe(self._shape, seconds)

    def _enter(self, scale: int) -> None:
        """Go on with what is known of batches of this size."""
        if self._shape != self._batch.costs.chosen:
            self._batch.end_look(won=False)
        self._batch, self._scale = self._batches.setdefault(scale, Knowledge()), scale
        self._batch.wait = self._batch.patience
        self._play(self._batch.costs.chosen, FIRST)

    def _turn(self) -> None:
        """Choose; then look at another shape if it is time."""
        batch, costs = self._batch, self._batch.costs
        if self._shape.depth:
            for seen in {*self._seen.values()} - {self._seen[self._shape]}:
                seen.fade()
        speeds, before = self._speeds(), costs.chosen
        costs.chosen = max(costs.known, key=speeds.__getitem__)
        if self._shape != before:
            batch.end_look(won=costs.chosen != before)
            if self._untried(speeds) is not None:
                batch.patience = FIRST
            batch.wait = batch.patience
        elif batch.wait <= 0 and not self._loss.high:
            other = self._untried(speeds) or self._rival(speeds)
            slow = costs.chosen == NOTHING and speeds[other] < FAR * speeds[NOTHING]
            self._play(other, LOOK, probing=slow and self._round % PROBED > 0)
            return
        rounds = min(max(batch.wait, 1), DECIDE)
        batch.wait -= rounds
        self._play(costs.chosen, rounds)

    def _play(self, shape: Shape, rounds: int, *, probing: bool = False) -> None:
        if shape != self._shape:
            self._unsettled = max(self._lag, self._shape == NOTHING)
        self._shape, self._left, self._probing = shape, rounds + self._unsettled, probing
        self._batch.played[shape] = self._round

    def _speeds(self) -> dict[Shape, float]:
        """Tokens of a request per unit of cost; of shapes not tried yet, at most."""
        costs, chain = self._batch.costs, self._chains.rates()
        speeds = {NOTHING: MIN_GAIN / costs.known[NOTHING]}
        for shape in self._shapes:
            rates = chain[: shape.depth]
            if shape.width > 1:
                rates = self._seen[shape].rates([widen(rate, shape.fan) for rate in rates])
            speeds[shape] = expected_tokens(rates) / costs.least(shape)
        return speeds

    def _untried(self, speeds: dict[Shape, float]) -> Shape | None:
        """The most promising new shape, at most twice as large as the largest one tried."""
        known, best = self._batch.costs.known, speeds[self._batch.costs.chosen]
        most = 2 * max(shape.budget for shape in known) + 1
        new = [s for s in self._shapes if s not in known and s.budget <= most and speeds[s] > best]
        return max(new, key=speeds.__getitem__, default=None)

    def _rival(self, speeds: dict[Shape, float]) -> Shape:
        """Each known shape in its turn, the slower the more rarely; the smallest if none is."""
        batch = self._batch
        rivals = [shape for shape in batch.costs.known if shape != batch.costs.chosen]
        rivals = rivals or self._shapes[:1]
        return max(rivals, key=lambda s: speeds[s] ** 2 * (self._round - batch.played.get(s, 0)))

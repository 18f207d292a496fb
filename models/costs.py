"""How long passes and whole rounds take here: measured first, corrected while running."""

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np

from models.batch import Batch
from models.draft import NOTHING, Shape
from models.target import Cache, Target

SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128)  # kernels work on rows in groups: it is no line
REPEATS = 9
MEASURE_S = 0.3  # for a model's passes, before it runs: a job's first row waits for them
REST_S = 3e-4  # of a round beside the passes, before any was seen
# Of a draft's level beside its pass, in a chain and in a tree: where each pass is a call, and where
# the whole draft is one.
LEVEL_S, LEVEL_AT_ONCE_S = (1e-4, 2e-4), (2e-5, 8e-5)
MOST_KNOWN = 4096  # predictions kept
BELIEVED = 0.5  # of what the curves say that a drafted round costs beyond a plain one, at least


class PassCost:
    """Seconds of a pass over n nodes: a measured curve."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        seconds: tuple[float, ...],
        level_s: tuple[float, float] = LEVEL_S,
    ) -> None:
        """`level_s`: of a draft's level beside its pass, in a chain and in a tree."""
        self._sizes, self.level_s = sizes, level_s
        # A wider pass that measured cheaper is noise; the curve must not reward it.
        self._seconds = tuple(accumulate(seconds, max))

    def __call__(self, nodes: float) -> float:
        """Seconds of one pass over `nodes` nodes, all rows together."""
        sizes, seconds = self._sizes, self._seconds
        if nodes >= sizes[-1]:
            return seconds[-1] * nodes / sizes[-1]
        after = bisect_right(sizes, nodes)
        if after == 0:
            return seconds[0]
        share = (nodes - sizes[after - 1]) / (sizes[after] - sizes[after - 1])
        return seconds[after - 1] + share * (seconds[after] - seconds[after - 1])


@dataclass(slots=True)
class Ratio:
    """Seen over predicted: a mean over the last `window` or so, begun with `prior` as the value."""

    value: float
    prior: int = 1
    window: int = 16
    count: int = 0

    def observe(self, ratio: float) -> None:
        self.count += 1
        self.value += (ratio - self.value) / min(self.count + self.prior, self.window)


class RoundCost:
    """Seconds of a whole round: what the curves say, times how such rounds have turned out.

    Curves are measured with one row and miss what a round costs beside its passes. So every shape
    learns, for one, two to three, four to seven... rows, its own ratio of seen to predicted; a
    shape not tried yet starts from the ratio of its kind (plain, chain or tree).
    """

    def __init__(self, score: PassCost, draft: PassCost | None) -> None:
        """`draft` is the cost of one pass of the draft model; None where drafting runs no model."""
        self._score, self._draft = score, draft
        self._known: dict[tuple[Shape, int, int], float] = {}  # predictions
        self._all = Ratio(1.0)
        self._kinds: dict[tuple[str, int], Ratio] = {}
        self._shapes: dict[tuple[Shape, int], Ratio] = {}

    def __call__(self, shape: Shape, rows: int, nodes: float) -> float:
        """Seconds of a round of `rows` requests that scores `nodes` nodes."""
        plain = self._seen(NOTHING, rows, rows)
        return self.beside(plain, shape, rows, nodes) if shape.depth else plain

    def beside(self, plain: float, shape: Shape, rows: int, nodes: float) -> float:
        """The same of a drafted round, where a plain one takes `plain` seconds.

        Never much less than a plain round and the draft: plain rounds are rare while drafting, and
        one slow one must not make drafts look free for long.
        """
        dearer = self._predicted(shape, rows, nodes) / self._predicted(NOTHING, rows, rows) - 1
        least = plain * (1 + BELIEVED * max(dearer, 0.0))
        return max(self._seen(shape, rows, nodes), least)

    def _seen(self, shape: Shape, rows: int, nodes: float) -> float:
        return self._predicted(shape, rows, nodes) * self._ratio(shape, rows).value

    def _predicted(self, shape: Shape, rows: int, nodes: float) -> float:
        asked = shape, rows, round(nodes)
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[asked] = self._predict(*asked)
        return known

    def _predict(self, shape: Shape, rows: int, nodes: int) -> float:
        seconds = REST_S + self._score(nodes)
        if self._draft is not None and shape.depth:
            # The first pass reads what was committed (two tokens or so), others a level each.
            seconds += self._draft(2 * rows) + (shape.depth - 1) * self._draft(shape.width * rows)
            seconds += shape.depth * self._draft.level_s[shape.width > 1]
        return seconds

    def _ratio(self, shape: Shape, rows: int) -> Ratio:
        scale = rows.bit_length()
        kind = self._kinds.get((_kind(shape), scale), self._all)
        return self._shapes.get((shape, scale), kind)

    def count(self, shape: Shape, rows: int) -> int:
        """How many rounds of this shape were seen with about as many rows."""
        known = self._shapes.get((shape, rows.bit_length()))
        return known.count if known else 0

    def observe(self, shape: Shape, rows: int, nodes: int, seconds: float) -> None:
        """Learn from a round."""
        ratio, scale = seconds / self._predicted(shape, rows, nodes), rows.bit_length()
        own = self._shapes.setdefault((shape, scale), Ratio(self._ratio(shape, rows).value))
        kind = self._kinds.setdefault((_kind(shape), scale), Ratio(self._all.value))
        for known in (own, kind, self._all):  # one outlier counts little
            known.observe(min(max(ratio, 0.5 * known.value), 2 * known.value))


def _kind(shape: Shape) -> str:
    if shape.depth == 0:
        return "plain"
    return "chain" if shape.width == 1 else "tree"


def measure(model: Target, *, context: int = 64, largest: int = SIZES[-1]) -> PassCost:
    """Time passes of 1 to `largest` nodes behind `context` cached tokens; medians."""
    context = min(context, model.context_length // 2)
    largest = min(largest, model.context_length - context)
    sizes = tuple(n for n in SIZES if n <= largest)
    cache = model.new_cache(1, context + largest)
    model.score(cache, _chain(context))
    cache.commit(0, np.arange(context))
    seconds = _medians([partial(_pass, model, cache, n) for n in sizes])
    return PassCost(
        sizes, seconds, LEVEL_AT_ONCE_S if getattr(model, "chooses", False) else LEVEL_S
    )


def _pass(model: Target, cache: Cache, nodes: int) -> None:
    # Results must be waited for on a GPU: reading one number does.
    float(model.score(cache, _chain(nodes)).logits[0, 0])


def _chain(nodes: int) -> Batch:
    return Batch(
        rows=np.zeros(1, dtype=np.int64),
        counts=np.array([nodes]),
        tokens=np.zeros(nodes, dtype=np.int64),
        depths=np.arange(nodes),
        visible=(None,),
    )


def _medians(runs: Sequence[Callable[[], None]]) -> tuple[float, ...]:
    """Seconds of each run, in turn and again: as often as MEASURE_S allows, up to REPEATS times."""
    until = time.perf_counter() + MEASURE_S
    times = [_seconds(runs)]  # the first turn warms up; it counts where there is time for no other
    while time.perf_counter() < until and len(times) <= REPEATS:
        times.append(_seconds(runs))
    return tuple(np.median(times[1:] or times, axis=0).tolist())


def _seconds(runs: Sequence[Callable[[], None]]) -> list[float]:
    ends = [time.perf_counter()]
    for run in runs:
        run()
        ends.append(time.perf_counter())
    return np.diff(ends).tolist()

"""How long a forward pass takes on this machine, by the number of its nodes."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from models.batch import Batch
from models.target import Cache, Target

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
REPEATS = 3


class PassCost:
    """Seconds of a pass over n nodes: a measured curve, corrected by what is seen while running."""

    def __init__(self, sizes: tuple[int, ...], seconds: tuple[float, ...]) -> None:
        self._sizes = np.array(sizes, dtype=np.float64)
        # A wider pass that measured cheaper is noise; the curve must not reward it.
        self._seconds = np.maximum.accumulate(np.array(seconds, dtype=np.float64))
        self._scale = 1.0

    def __call__(self, nodes: int) -> float:
        """Seconds of one pass over `nodes` nodes, all rows together."""
        return self._scale * self._curve(nodes)

    def _curve(self, nodes: int) -> float:
        if nodes <= self._sizes[-1]:
            return float(np.interp(nodes, self._sizes, self._seconds))
        return float(self._seconds[-1] * nodes / self._sizes[-1])

    def observe(self, nodes: int, seconds: float) -> None:
        """Learn from a pass that took `seconds`; outliers count little."""
        ratio = min(max(seconds / self._curve(nodes), 0.5 * self._scale), 2 * self._scale)
        self._scale += 0.05 * (ratio - self._scale)


def measure(model: Target, *, context: int = 64, largest: int = SIZES[-1]) -> PassCost:
    """Time passes of 1 to `largest` nodes behind `context` cached tokens; medians."""
    context = min(context, model.context_length // 2)
    largest = min(largest, model.context_length - context)
    sizes = tuple(n for n in SIZES if n <= largest)
    cache = model.new_cache(1, context + largest)
    model.score(cache, _chain(context))
    cache.commit(0, np.arange(context))
    return PassCost(sizes, tuple(_median(partial(_pass, model, cache, n)) for n in sizes))


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


def _median(run: Callable[[], None]) -> float:
    run()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))

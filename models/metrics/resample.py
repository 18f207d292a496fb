"""Random subsets of rows; intervals and p-values of metrics. Does not depend on the metrics.

Subsets hold no row twice: copies would shrink neighbours' distances and increase Fréchet distances.
Letters: R subsets, N rows, M metrics.
"""

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEVEL = 0.95


def subsets(strata: Ints, size: int, count: int, random: np.random.Generator) -> Bools:
    """`count` random subsets of `size` rows, each with the shares of the strata (± 1 row): [R, N].

    Args:
        strata: [N] the stratum of each row; with one stratum all subsets are equally likely.
    """
    order = _orders(strata, count, random)
    masks = np.zeros(order.shape, dtype=np.bool_)
    np.put_along_axis(masks, order[:, :size], True, axis=1)
    return masks


def proportional_order(strata: Ints, random: np.random.Generator) -> Ints:
    """[N] a random order in which any first rows have the strata's shares (± 1 row)."""
    order: Ints = _orders(strata, 1, random)[0]
    return order


def _orders(strata: Ints, count: int, random: np.random.Generator) -> Ints:
    """[R, N] orders in which the shuffled rows of a stratum are evenly spaced."""
    keys = np.empty((count, len(strata)))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        places = random.permuted(np.tile(np.arange(len(rows)), (count, 1)), axis=1)
        keys[:, rows] = (places + random.random((count, len(rows)))) / len(rows)
    return keys.argsort(axis=1)


def interval(
    value: float, parts: Floats, *, share: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """The 95 % confidence interval of the metric's expected value.

    The value on a share of the rows varies around its mean as the value on all rows varies around
    its expected value, times sqrt((1 - share) / share), which is 1 for halves.

    Args:
        value: the metric on all rows; parts: [R] on subsets with this `share` of the rows.
        bounds: the range of the metric.
    Source: Politis, Romano and Wolf, Subsampling (1999), chapter 2; the finite-population factor.
    """
    deviations = (parts - parts.mean()) * np.sqrt(share / (1 - share))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(deviations, [tail, 1 - tail])
    return float(np.clip(value - high, *bounds)), float(np.clip(value - low, *bounds))


def standardized(observed: Floats, permuted: Floats, one_sided: Bools) -> tuple[Floats, Floats]:
    """Differences divided by their standard deviation over permutations; 0 if that is 0.

    Args:
        observed: [M] metric of the samples minus metric of the floor; permuted: [R, M] the same
            after shuffling the rows of both sets.
        one_sided: [M] whether only larger values count; others lose their sign.
    Returns:
        [M] and [R, M].
    """
    together = np.concatenate([observed[None], permuted])
    spread = np.sqrt(np.square(together).mean(axis=0))  # shuffled differences have mean 0
    scores = np.divide(together, spread, out=np.zeros_like(together), where=spread > 0)
    scores = np.where(one_sided, scores, np.abs(scores))
    return scores[0], scores[1:]


def adjusted_p_values(observed: Floats, permuted: Floats) -> Floats:
    """How often the largest permuted score of all metrics reaches each observed score: [M].

    If samples and floor have the same distribution, the probability that any metric has a p-value
    of at most p is at most p, whatever the number of metrics and their dependence.

    Args:
        observed: [M], permuted: [R, M], both `standardized`.
    Source: Westfall and Young, Resampling-Based Multiple Testing (1993), single-step max T.
    """
    largest = permuted.max(axis=1)  # [R]
    reached = (largest[:, None] >= observed - 1e-9).sum(axis=0)
    p_values: Floats = (1 + reached) / (1 + len(largest))
    return p_values

"""Subsets of rows and what they say of a figure: intervals and p-values. Knows no figure.

No row is drawn twice: copies would shrink neighbours' distances and inflate Fréchet ones.
Letters: R subsets, N rows, M figures.
"""

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEVEL = 0.95


def subsets(strata: Ints, size: int, count: int, random: np.random.Generator) -> Bools:
    """`count` random subsets of `size` rows, with the strata's shares in each (± a row): [R, N].

    Args:
        strata: [N] which one each row belongs to; one stratum makes all subsets equally likely.
    """
    order = _orders(strata, count, random)
    masks = np.zeros(order.shape, dtype=np.bool_)
    np.put_along_axis(masks, order[:, :size], True, axis=1)
    return masks


def proportional_order(strata: Ints, random: np.random.Generator) -> Ints:
    """[N] a random order in which any first rows have the strata's shares (± a row)."""
    order: Ints = _orders(strata, 1, random)[0]
    return order


def _orders(strata: Ints, count: int, random: np.random.Generator) -> Ints:
    """[R, N] orders: a stratum's rows, shuffled, stand at even distances."""
    keys = np.empty((count, len(strata)))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        places = random.permuted(np.tile(np.arange(len(rows)), (count, 1)), axis=1)
        keys[:, rows] = (places + random.random((count, len(rows)))) / len(rows)
    return keys.argsort(axis=1)


def interval(
    value: float, parts: Floats, *, share: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Where the figure's expectation lies, with 95 % confidence.

    The value on a part of the rows scatters around its mean as the value on all rows does around
    its expectation, times sqrt((1 - share) / share): the same for halves.

    Args:
        value: the figure on all rows; parts: [R] on subsets with this `share` of the rows.
        bounds: what the figure cannot leave.
    Source: Politis, Romano and Wolf, Subsampling (1999), chapter 2; the finite-population factor.
    """
    deviations = (parts - parts.mean()) * np.sqrt(share / (1 - share))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(deviations, [tail, 1 - tail])
    return float(np.clip(value - high, *bounds)), float(np.clip(value - low, *bounds))


def standardized(observed: Floats, permuted: Floats, one_sided: Bools) -> tuple[Floats, Floats]:
    """Differences in units of their standard deviation over permutations; 0 where there is none.

    Args:
        observed: [M] figure on the samples less figure on the floor; permuted: [R, M] the same
            after the two sets' rows were shuffled.
        one_sided: [M] whether only larger ones count; others lose their sign.
    Returns:
        [M] and [R, M].
    """
    together = np.concatenate([observed[None], permuted])
    spread = np.sqrt(np.square(together).mean(axis=0))  # shuffled differences have mean 0
    scores = np.divide(together, spread, out=np.zeros_like(together), where=spread > 0)
    scores = np.where(one_sided, scores, np.abs(scores))
    return scores[0], scores[1:]


def adjusted_p_values(observed: Floats, permuted: Floats) -> Floats:
    """How often the largest of all figures' permuted scores reaches each observed one: [M].

    If samples and floor have one law, some figure has a p-value of at most p with probability at
    most p, however many figures there are and however they hang together.

    Args:
        observed: [M], permuted: [R, M], both `standardized`.
    Source: Westfall and Young, Resampling-Based Multiple Testing (1993), single-step max T.
    """
    largest = permuted.max(axis=1)  # [R]
    reached = (largest[:, None] >= observed - 1e-9).sum(axis=0)
    p_values: Floats = (1 + reached) / (1 + len(largest))
    return p_values

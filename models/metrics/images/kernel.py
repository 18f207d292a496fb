"""The kernel distance: an unbiased estimate of the squared maximum mean discrepancy.

Its expected value is 0 for two sets from one distribution, so values may be slightly negative.
Letters: R subsets, n rows, D features.
"""

import numpy as np

from models.metrics.resample import Bools, Floats

DEGREE = 3


class KernelDistance:
    """Distances between subsets of a pool and of a reference, with the kernel (x·y / D + 1)³.

    Source: Binkowski et al. 2018, arXiv 1801.01401, section 4 and equation (4) of Gretton et al.
    2012, JMLR 13, for the estimate.
    """

    def __init__(self, pool: Floats, reference: Floats) -> None:
        """Features [2n, D] and [m, D]."""
        self._pool = _kernel(pool, pool)
        self._reference = _kernel(reference, reference)
        self._cross = _kernel(pool, reference)

    def __call__(self, rows: Bools, reference: Bools) -> Floats:
        """[R] for rows [R, 2n] and reference [R, m]."""
        x, y = rows.astype(np.float64), reference.astype(np.float64)
        cross = ((x @ self._cross) * y).sum(axis=1) / (x.sum(axis=1) * y.sum(axis=1))
        distance: Floats = _within(self._pool, x) + _within(self._reference, y) - 2 * cross
        return distance


def _kernel(a: Floats, b: Floats) -> Floats:
    kernel: Floats = (a @ b.T / a.shape[1] + 1) ** DEGREE
    return kernel


def _within(kernel: Floats, x: Floats) -> Floats:
    """Mean of the kernel over pairs of two different rows of each subset: [R]."""
    size = x.sum(axis=1)
    total = ((x @ kernel) * x).sum(axis=1) - x @ np.diagonal(kernel)
    mean: Floats = total / (size * (size - 1))
    return mean

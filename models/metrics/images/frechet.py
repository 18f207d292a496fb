"""The Fréchet distance of two sets of features, from their means and covariances.

Letters: R subsets, N rows, D features.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.metrics.resample import Bools, Floats


@dataclass(frozen=True)
class Moments:
    """Mean [D] and covariance [D, D] of a set."""

    mean: Floats
    covariance: Floats

    @cached_property
    def root(self) -> Floats:
        """The covariance's symmetric square root [D, D]."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: Floats = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        return root


def moments(features: Floats) -> Moments:
    """The moments of features [N, D], N at least 2, with the unbiased covariance."""
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(mean, centred.T @ centred / (len(features) - 1))


def frechet(a: Moments, b: Moments) -> float:
    """|mean a - mean b|² + trace(A + B - 2 (A^½ B A^½)^½), never under 0.

    Source: Dowson and Landau 1982, J. Multivariate Analysis 12, equation (4).
    """
    cross = np.linalg.eigvalsh(a.root @ b.covariance @ a.root)
    shift = np.square(a.mean - b.mean).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(cross.clip(0)).sum()
    return max(0.0, float(shift + spread))


class FrechetDistance:
    """Distances between subsets of a pool and of a reference. Larger subsets have less bias."""

    def __init__(self, pool: Floats, reference: Floats) -> None:
        """Features [2n, D] and [m, D]."""
        self._pool, self._reference = pool, reference
        self._whole = moments(reference)

    def __call__(self, rows: Bools, reference: Bools) -> Floats:
        """[R] for rows [R, 2n] and reference [R, m]."""
        pairs = zip(rows, reference, strict=True)
        return np.array(
            [frechet(self._moments(part), moments(self._pool[row])) for row, part in pairs]
        )

    def _moments(self, part: Bools) -> Moments:
        return self._whole if part.all() else moments(self._reference[part])

"""Precision and recall with nearest neighbours.

A set's region is the union of balls around its rows, each as large as the distance to the row's
k-th neighbour in the set. Letters: R subsets, 2n pool rows, m reference rows, L listed neighbours.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from models.metrics.resample import Bools, Floats

LISTED = 64  # neighbours stored for each row; nearly always enough to find k in a subset


class Distances:
    """All distances for precision and recall, in float32 to save memory.

    Source: Kynkäänniemi et al. 2019, arXiv 1904.06991, equations (1) and (2).
    """

    def __init__(self, pool: Floats, reference: Floats, *, k: int) -> None:
        """Features [2n, D] and [m, D]."""
        self.cross = _distances(pool, reference)  # [2n, m]
        self.pool, self.reference = Radii(pool, k=k), Radii(reference, k=k)

    def precision(self, rows: Bools, reference: Bools) -> Floats:
        """[R] share of the rows that lie in the reference's region."""
        return np.array([self._precision(*pair) for pair in zip(rows, reference, strict=True)])

    def recall(self, rows: Bools, reference: Bools) -> Floats:
        """[R] share of the reference that lies in the rows' region."""
        return np.array([self._recall(*pair) for pair in zip(rows, reference, strict=True)])

    def _precision(self, rows: Bools, reference: Bools) -> float:
        near = self.cross[rows] <= self.reference(reference)  # [N, m]
        return float(near.any(axis=1).mean())

    def _recall(self, rows: Bools, reference: Bools) -> float:
        near = self.cross <= self.pool(rows)[:, None]  # [2n, m]
        return float(near[:, reference].any(axis=0).mean())


class Radii:
    """Distances to the k-th neighbour within subsets of a set."""

    def __init__(self, features: Floats, *, k: int) -> None:
        distances = _distances(features, features)
        np.fill_diagonal(distances, np.inf)
        listed = min(LISTED, len(distances) - 1)
        nearest = np.argpartition(distances, listed - 1, axis=1)[:, :listed]
        order = np.take_along_axis(distances, nearest, axis=1).argsort(axis=1)
        self._nearest = np.take_along_axis(nearest, order, axis=1)  # [N, L]
        self._distances, self._k = distances, k
        self._whole: NDArray[np.float32] | None = None

    def __call__(self, rows: Bools) -> NDArray[np.float32]:
        """[N] the radius of each row in the subset `rows` [N]; -1 for other rows."""
        if not rows.all():
            return self._of(rows)
        if self._whole is None:
            self._whole = self._of(rows)
        return self._whole

    def _of(self, rows: Bools) -> NDArray[np.float32]:
        radii = np.full(len(rows), -1, dtype=np.float32)
        among = rows[self._nearest].cumsum(axis=1, dtype=np.int32) >= self._k  # [N, L]
        listed = rows & among[:, -1]
        column = among.argmax(axis=1)[listed]
        radii[listed] = self._distances[listed, self._nearest[listed, column]]
        for row in np.flatnonzero(rows & ~listed):
            radii[row] = np.partition(self._distances[row, rows], self._k - 1)[self._k - 1]
        return radii


def _distances(a: Floats, b: Floats) -> NDArray[np.float32]:
    distances: NDArray[np.float32] = cdist(a, b).astype(np.float32)
    return distances

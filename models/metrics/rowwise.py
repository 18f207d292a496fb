"""Metrics that are sums over rows: means per row or token, and the entropy of classes.

Letters: R subsets, N rows, K classes.
"""

import numpy as np

from models.metrics.resample import Bools, Floats, Ints
from models.metrics.tables import entropy


class Mean:
    """The sum of values divided by the sum of weights, for subsets of rows."""

    def __init__(self, values: Floats, weights: Floats | None = None) -> None:
        """Values and weights [N]; without weights each row has the weight 1."""
        self._values = values.astype(np.float64)
        self._weights = np.ones(len(values)) if weights is None else weights.astype(np.float64)

    def __call__(self, rows: Bools, reference: Bools) -> Floats:
        """[R] for rows [R, N]."""
        mean: Floats = (rows @ self._values) / (rows @ self._weights)
        return mean


class ClassEntropy:
    """Entropy of the classes of subsets of rows, in nats."""

    def __init__(self, classes: Ints) -> None:
        """The classes [N] of the rows."""
        self._members = np.eye(int(classes.max()) + 1)[classes]  # [N, K]

    def __call__(self, rows: Bools, reference: Bools) -> Floats:
        """[R] for rows [R, N]."""
        counts = rows @ self._members
        return entropy(counts / counts.sum(axis=1, keepdims=True))

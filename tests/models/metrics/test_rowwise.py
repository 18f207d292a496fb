"""Means over rows and tokens, entropy of classes."""

import numpy as np

from models.metrics.rowwise import ClassEntropy, Mean

ROWS = np.array([[True, True, False], [False, True, True]])


def test_means_of_subsets():
    values = np.array([1.0, 0.0, 1.0])
    np.testing.assert_allclose(Mean(values)(ROWS, ROWS), [0.5, 0.5])
    np.testing.assert_allclose(Mean(values > 0)(ROWS[:1], ROWS), [0.5])


def test_a_mean_per_token_weighs_rows_by_their_tokens():
    sums, counts = np.array([10.0, 2.0, 9.0]), np.array([5.0, 1.0, 3.0])
    np.testing.assert_allclose(Mean(sums, counts)(ROWS, ROWS), [12 / 6, 11 / 4])


def test_entropy_of_classes():
    found = ClassEntropy(np.array([4, 0, 0]))(ROWS, ROWS)
    np.testing.assert_allclose(found, [np.log(2), 0], atol=1e-12)

"""The kernel distance: its estimate, its expectation, its size for a known difference."""

import numpy as np
import pytest

from models.metrics.images.kernel import KernelDistance


def by_hand(x, y):
    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    def mean(pairs):
        return np.mean([kernel(a, b) for a, b in pairs])

    within = [
        mean((a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) for s in (x, y)
    ]
    return sum(within) - 2 * mean((a, b) for a in x for b in y)


def test_it_is_the_unbiased_estimate_of_the_subsets():
    random = np.random.default_rng(0)
    pool, reference = random.standard_normal((14, 3)), random.standard_normal((9, 3)) + 0.3
    rows, parts = random.random((3, 14)) < 0.5, random.random((3, 9)) < 0.6
    found = KernelDistance(pool, reference)(rows, parts)
    expected = [by_hand(pool[row], reference[part]) for row, part in zip(rows, parts, strict=True)]
    np.testing.assert_allclose(found, expected)


def test_its_mean_is_zero_for_one_law_at_any_size():
    random = np.random.default_rng(1)
    features = random.standard_normal((800, 4))
    distance = KernelDistance(features[:400], features[400:])
    for size in (5, 10):
        rows = np.zeros((200, 400), dtype=bool)
        for i in range(200):
            rows[i, size * (i % 40) : size * (i % 40) + size] = True
        parts = random.permuted(rows, axis=1)
        found = distance(rows, parts)
        error = found.std() / np.sqrt(40)  # 40 disjoint subsets
        assert abs(found.mean()) < 3 * error
        assert error < 0.3  # keeping a row's pair with itself would add about 4 and 2


def test_a_known_difference_is_found():
    """x = 1 or -1 against always 1: in one dimension E k(x, x') = 4, k(1, 1) = 8, E k(x, 1) = 4."""
    x = np.tile([[1.0], [-1.0]], (500, 1))
    y = np.ones((1000, 1))
    every = np.ones((1, 1000), dtype=bool)
    assert KernelDistance(x, y)(every, every)[0] == pytest.approx(4 + 8 - 2 * 4, rel=0.01)

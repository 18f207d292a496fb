"""Fréchet distances against the closed forms for Gaussians."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from models.metrics.images.frechet import FrechetDistance, Moments, frechet, moments


def random_moments(seed: int, width: int, rank: int | None = None) -> Moments:
    random = np.random.default_rng(seed)
    root = random.standard_normal((width, rank or width))
    return Moments(random.standard_normal(width), root @ root.T)


def test_moments_are_numpys():
    features = np.random.default_rng(0).standard_normal((50, 3))
    found = moments(features)
    np.testing.assert_allclose(found.mean, features.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(features.T))


def test_one_dimension():
    a, b = Moments(np.array([1.0]), np.array([[4.0]])), Moments(np.array([4.0]), np.array([[9.0]]))
    assert frechet(a, b) == pytest.approx(3**2 + (3 - 2) ** 2)


def test_commuting_covariances():
    a = Moments(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = Moments(np.array([0.0, 2.0, 0.0]), np.diag([4.0, 4.0, 0.0]))
    assert frechet(a, b) == pytest.approx(4 + 1 + 0 + 9)


@pytest.mark.parametrize("rank", [None, 3])
def test_any_covariances_as_by_the_textbook(rank):
    a, b = random_moments(0, 6, rank), random_moments(1, 6, rank)
    product = sqrtm((a.root @ b.covariance @ a.root).astype(complex)).real
    expected = np.square(a.mean - b.mean).sum()
    expected += np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(product)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet(a, b) == pytest.approx(frechet(b, a))


def test_a_rotation_of_both_changes_nothing():
    a, b = random_moments(0, 5), random_moments(1, 5)
    turn, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 5)))
    turned = [Moments(turn @ x.mean, turn @ x.covariance @ turn.T) for x in (a, b)]
    assert frechet(*turned) == pytest.approx(frechet(a, b))


def test_nothing_to_itself():
    a = random_moments(0, 8, rank=2)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_subsets_are_those_rows():
    random = np.random.default_rng(0)
    pool, reference = random.standard_normal((40, 3)), random.standard_normal((30, 3)) + 0.5
    rows, parts = random.random((4, 40)) < 0.5, random.random((4, 30)) < 0.5
    parts[0] = True
    found = FrechetDistance(pool, reference)(rows, parts)
    expected = [
        frechet(moments(pool[row]), moments(reference[part]))
        for row, part in zip(rows, parts, strict=True)
    ]
    np.testing.assert_allclose(found, expected)


def test_the_distance_of_known_laws_is_found():
    random = np.random.default_rng(0)
    a = random.standard_normal((20_000, 2)) * [1, 2] + [3, 0]
    b = random.standard_normal((20_000, 2)) * [2, 2]
    every = np.ones((1, 20_000), dtype=bool)
    assert FrechetDistance(a, b)(every, every)[0] == pytest.approx(9 + 1, rel=0.02)

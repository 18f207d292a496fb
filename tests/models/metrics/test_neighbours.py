"""Precision and recall on clusters, and against a plain count."""

import numpy as np
import pytest

from models.metrics.images import neighbours
from models.metrics.images.neighbours import Distances


def both(pool, reference, *, k=3, rows=None, parts=None):
    rows = np.ones((1, len(pool)), dtype=bool) if rows is None else rows
    parts = np.ones((len(rows), len(reference)), dtype=bool) if parts is None else parts
    distances = Distances(pool, reference, k=k)
    return distances.precision(rows, parts), distances.recall(rows, parts)


def by_hand(a, b, k):
    """Share of a in b's region."""
    radii = [sorted(np.linalg.norm(b - row, axis=1))[k] for row in b]
    return np.mean([any(np.linalg.norm(b - row, axis=1) <= radii) for row in a])


def cluster(seed, count, centre):
    return np.random.default_rng(seed).standard_normal((count, 2)) * 0.1 + centre


def test_separated_clusters_share_nothing():
    precision, recall = both(cluster(0, 30, [0, 0]), cluster(1, 40, [9, 9]))
    assert (precision, recall) == (0, 0)


def test_a_set_covers_itself():
    points = cluster(0, 30, [0, 0])
    precision, recall = both(points, points)
    assert (precision, recall) == (1, 1)


def test_a_lost_mode_costs_recall_alone():
    reference = np.concatenate([cluster(0, 50, [0, 0]), cluster(1, 50, [9, 9])])
    precision, recall = both(reference[:50], reference)
    assert precision == 1
    assert recall == 0.5


def test_an_invented_mode_costs_precision_alone():
    samples = np.concatenate([cluster(0, 30, [0, 0]), cluster(1, 10, [9, 9])])
    precision, recall = both(samples, samples[:30])
    assert precision == 0.75
    assert recall == 1


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("listed", [64, 6])
def test_subsets_as_counted_plainly(k, listed, monkeypatch):
    """Also where too few of the listed neighbours are in the subset."""
    monkeypatch.setattr(neighbours, "LISTED", listed)
    random = np.random.default_rng(0)
    pool, reference = random.standard_normal((40, 2)), random.standard_normal((30, 2)) + 0.7
    rows, parts = random.random((5, 40)) < 0.4, random.random((5, 30)) < 0.6
    precision, recall = both(pool, reference, k=k, rows=rows, parts=parts)
    pairs = [(pool[row], reference[part]) for row, part in zip(rows, parts, strict=True)]
    np.testing.assert_allclose(precision, [by_hand(a, b, k) for a, b in pairs])
    np.testing.assert_allclose(recall, [by_hand(b, a, k) for a, b in pairs])

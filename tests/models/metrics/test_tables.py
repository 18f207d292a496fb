"""Total variation and entropy of known tables."""

import numpy as np
import pytest

from models.metrics.tables import (
    PositionEntropy,
    Table,
    TableDistance,
    bigrams,
    entropy,
    positions,
    total_variation,
)


def rows_of(*texts):
    return [np.array([int(token) for token in text.split()], dtype=np.int64) for text in texts]


def distance(cells, pool, reference, rows=None):
    every = np.ones((1, len(reference)), dtype=bool)
    rows = np.ones((1, len(pool)), dtype=bool) if rows is None else rows
    found = TableDistance(
        *cells([*pool, *reference]), num_pool=len(pool), num_reference=len(reference)
    )
    return found(rows, every.repeat(len(rows), 0))


def test_total_variation_of_shares():
    a, b = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert total_variation(a, b) == pytest.approx(0.5)
    assert total_variation(a, a) == 0
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1


def test_entropy_of_shares():
    np.testing.assert_allclose(entropy(np.array([[0.25] * 4, [1.0, 0, 0, 0]])), [np.log(4), 0])


def test_positions_are_told_apart():
    pool, reference = rows_of("0 1", "0 1"), rows_of("1 0", "1 0")
    assert distance(positions, pool, reference) == 1
    assert distance(positions, pool, rows_of("0 1")) == 0
    assert distance(positions, pool, rows_of("0 1", "0 0")) == pytest.approx((0 + 0.5) / 2)


def test_pairs_are_counted_wherever_they_stand():
    assert distance(bigrams, rows_of("0 1 2"), rows_of("1 2", "0 1")) == 0
    assert distance(bigrams, rows_of("0 1 2"), rows_of("2 1 0")) == 1
    assert distance(bigrams, rows_of("0 1 2", "5"), rows_of("0 1", "0 1")) == pytest.approx(0.5)


def test_subsets_are_those_rows():
    pool, reference = rows_of("0 0", "1 1", "0 1"), rows_of("0 0", "1 1")
    rows = np.array([[True, False, False], [True, True, False], [False, True, True]])
    np.testing.assert_allclose(distance(positions, pool, reference, rows), [0.5, 0, 0.25])
    np.testing.assert_allclose(distance(bigrams, pool, reference, rows), [0.5, 0, 0.5])


def test_counts_of_a_table():
    owner, cells = positions(rows_of("3 5", "3 4"))
    table = Table(owner, cells, 2)
    counts = table.counts(np.array([[True, True], [False, True]]))
    assert counts.tolist() == [[2, 1, 1], [1, 1, 0]]


def test_many_subsets_are_done_in_parts(monkeypatch):
    random = np.random.default_rng(0)
    pool, reference = list(random.integers(0, 9, (30, 4))), list(random.integers(0, 9, (20, 4)))
    rows = random.random((17, 30)) < 0.5
    whole = distance(positions, pool, reference, rows), PositionEntropy(pool)(rows, rows)
    monkeypatch.setattr("models.metrics.tables.MAX_VALUES", 100)
    parts = distance(positions, pool, reference, rows), PositionEntropy(pool)(rows, rows)
    np.testing.assert_allclose(whole, parts)


def test_entropy_is_a_mean_over_positions():
    rows = np.array([[True, True], [True, False]])
    found = PositionEntropy(rows_of("7 0", "7 1"))(rows, rows)
    np.testing.assert_allclose(found, [np.log(2) / 2, 0])

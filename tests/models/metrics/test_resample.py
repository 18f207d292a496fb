"""Subsets, and how often intervals and p-values are right."""

import numpy as np
import pytest

from models.metrics.resample import (
    adjusted_p_values,
    interval,
    proportional_order,
    standardized,
    subsets,
)

FREE = (-np.inf, np.inf)


def test_every_subset_has_its_size_and_every_row_its_chance():
    random = np.random.default_rng(0)
    masks = subsets(np.zeros(11, dtype=np.int64), 5, 4000, random)
    assert (masks.sum(axis=1) == 5).all()
    np.testing.assert_allclose(masks.mean(axis=0), 5 / 11, atol=0.03)
    both = (masks[:, 0] & masks[:, 1]).mean()
    assert both == pytest.approx(5 / 11 * 4 / 10, abs=0.03)


def test_strata_keep_their_shares():
    random = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [40, 40, 20])
    masks = subsets(strata, 50, 300, random)
    assert (masks.sum(axis=1) == 50).all()
    for stratum, half in ((0, 20), (1, 20), (2, 10)):
        assert np.abs(masks[:, strata == stratum].sum(axis=1) - half).max() <= 1
    np.testing.assert_allclose(masks.mean(axis=0), 0.5, atol=0.12)


def test_any_beginning_of_a_proportional_order_is_fair():
    strata = np.repeat([0, 1], [300, 100])
    order = proportional_order(strata, np.random.default_rng(0))
    assert sorted(order) == list(range(400))
    for count in (40, 100, 200):
        assert abs((strata[order[:count]] == 1).sum() - count / 4) <= 1


def test_intervals_of_a_mean_cover_it_as_often_as_they_say():
    random, covered = np.random.default_rng(0), 0
    for _ in range(300):
        values = random.exponential(size=80)
        masks = subsets(np.zeros(80, dtype=np.int64), 40, 200, random)
        low, high = interval(values.mean(), masks @ values / 40, share=0.5, bounds=FREE)
        covered += low <= 1 <= high
    assert 0.89 <= covered / 300 <= 0.98


def test_a_half_sample_scatters_as_the_whole_does():
    random = np.random.default_rng(1)
    values = random.standard_normal(101)
    masks = subsets(np.zeros(101, dtype=np.int64), 50, 4000, random)
    low, high = interval(values.mean(), masks @ values / 50, share=50 / 101, bounds=FREE)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(101), rel=0.06)


def test_intervals_stay_where_the_figure_can_be():
    parts = np.array([0.9, 1.0, 0.8, 1.0])
    low, high = interval(0.99, parts, share=0.5, bounds=(0, 1))
    assert 0 < low < high == 1


def test_scores_are_differences_in_their_own_deviations():
    observed, permuted = np.array([2.0, -2.0, 0.0]), np.zeros((4, 3))
    permuted[:, :2] = np.array([[1, 1], [-1, -1], [0, 0], [0, 0]])
    scores, shuffled = standardized(observed, permuted, np.array([True, False, True]))
    spread = np.sqrt((4 + 1 + 1) / 5)
    np.testing.assert_allclose(scores, [2 / spread, 2 / spread, 0])
    np.testing.assert_allclose(shuffled[1], [-1 / spread, 1 / spread, 0])


def test_p_values_count_the_largest_of_all_figures():
    permuted = np.array([[0.0, 3.0], [1.0, 0.0], [2.5, 0.0]])
    found = adjusted_p_values(np.array([2.0, 9.0]), permuted)
    np.testing.assert_allclose(found, [(1 + 2) / 4, 1 / 4])


def test_nothing_differs_from_itself():
    scores, shuffled = standardized(np.zeros(2), np.zeros((9, 2)), np.array([True, False]))
    np.testing.assert_array_equal(adjusted_p_values(scores, shuffled), [1, 1])

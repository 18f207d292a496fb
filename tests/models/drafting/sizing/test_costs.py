"""Costs of shapes, compared with each other whatever the machine's pace."""

import pytest

from models.drafting.draft import NOTHING, Shape
from models.drafting.sizing.costs import PACE, SEEN, Costs

CHAIN, LONGER, TREE = Shape(depth=2), Shape(depth=4), Shape(depth=4, width=2, nodes=5)


def paced(seconds=1.0):
    costs = Costs()
    for _ in range(PACE):
        costs.observe(NOTHING, seconds)
    return costs


def test_costs_are_in_units_of_the_chosen_shape_at_its_pace():
    costs = paced(2e-3)
    costs.observe(CHAIN, 3e-3)
    assert costs.known == {NOTHING: 1.0, CHAIN: pytest.approx(1.5)}


def test_a_pace_that_changes_is_no_cost():
    costs = paced()
    costs.observe(CHAIN, 1.5)
    for _ in range(PACE):
        costs.observe(NOTHING, 3.0)
    for _ in range(SEEN):
        costs.observe(CHAIN, 4.5)
    assert costs.known == {NOTHING: 1.0, CHAIN: pytest.approx(1.5)}


def test_a_slow_moment_counts_little():
    costs = paced()
    costs.observe(NOTHING, 100.0)
    for seconds in (1.5, 100.0, 1.5):
        costs.observe(CHAIN, seconds)
    assert costs.known[CHAIN] == pytest.approx(1.5)


def test_a_newly_chosen_shape_is_timed_until_its_cost_is_sure():
    """A lucky first round must not stay its cost for ever."""
    costs = paced()
    costs.observe(CHAIN, 0.8)
    costs.chosen = CHAIN
    for _ in range(SEEN):
        costs.observe(CHAIN, 1.6)
    sure = costs.known[CHAIN]
    assert sure > 1.4
    for _ in range(PACE):
        costs.observe(CHAIN, 3.2)
    assert costs.known[CHAIN] == sure  # from now on it tells the pace
    costs.observe(NOTHING, 2.0)
    assert costs.known[NOTHING] < 1.1


def test_an_untried_shape_costs_at_least_what_smaller_ones_do():
    costs = paced()
    costs.observe(CHAIN, 1.5)
    assert costs.least(Shape(depth=1)) == 1.0
    assert costs.least(LONGER) == pytest.approx(1.5)
    costs.observe(LONGER, 1.8)
    assert costs.least(TREE) == pytest.approx(1.8)
    assert costs.least(Shape(depth=3, width=2, nodes=4)) == pytest.approx(1.5)

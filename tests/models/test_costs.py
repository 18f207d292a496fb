"""How long a pass takes: interpolated, never falling, corrected by what is seen."""

import pytest

from models.costs import PassCost, measure
from tests.models.looping import TARGET


def test_between_the_measured_sizes():
    cost = PassCost((1, 2, 4), (1.0, 2.0, 3.0))
    assert [cost(n) for n in (1, 2, 3, 4)] == [1.0, 2.0, 2.5, 3.0]
    assert cost(8) == 6.0  # beyond the largest: in proportion


def test_a_wider_pass_is_never_cheaper():
    cost = PassCost((1, 2, 4), (1.0, 0.5, 3.0))
    assert cost(2) == 1.0


def test_it_follows_what_is_seen():
    cost = PassCost((1, 2, 4), (1.0, 2.0, 3.0))
    for _ in range(300):
        cost.observe(2, 3.0)
    assert cost(2) == pytest.approx(3.0, rel=0.01)
    assert cost(1) == pytest.approx(1.5, rel=0.01)


def test_an_outlier_counts_little():
    cost = PassCost((1, 2), (1.0, 2.0))
    cost.observe(1, 1000.0)
    assert cost(1) <= 1.05
    cost.observe(1, 0.0)
    assert cost(1) >= 1.0


def test_measuring_leaves_a_curve_of_this_machine():
    cost = measure(TARGET, largest=16)
    seconds = [cost(n) for n in (1, 2, 4, 8, 16)]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < 1

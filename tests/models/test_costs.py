"""How long a pass takes: interpolated, never falling, corrected by what is seen."""

import pytest

from models.costs import PassCost, RoundCost, measure
from models.draft import NOTHING, Shape
from tests.models.looping import TARGET


def test_between_the_measured_sizes():
    cost = PassCost((1, 2, 4), (1.0, 2.0, 3.0))
    assert [cost(n) for n in (1, 2, 3, 4)] == [1.0, 2.0, 2.5, 3.0]
    assert cost(8) == 6.0  # beyond the largest: in proportion


def test_a_wider_pass_is_never_cheaper():
    cost = PassCost((1, 2, 4), (1.0, 0.5, 3.0))
    assert cost(2) == 1.0


def rounds():
    return RoundCost(PassCost((1, 100), (1.0, 1.0)), PassCost((1, 100), (0.1, 0.1)))


CHAIN, LONGER = Shape(depth=2), Shape(depth=4)


def test_a_round_is_its_passes_at_first():
    cost = rounds()
    assert cost(NOTHING, 1, 1) == pytest.approx(1.0, abs=0.01)
    assert cost(CHAIN, 1, 3) == pytest.approx(1.2, abs=0.01)


def test_rounds_of_a_shape_follow_what_is_seen():
    cost = rounds()
    for _ in range(100):
        cost.observe(CHAIN, 8, 24, 3.6)
        cost.observe(NOTHING, 8, 8, 0.5)
    assert cost(CHAIN, 8, 24) == pytest.approx(3.6, rel=0.01)
    assert cost(NOTHING, 8, 8) == pytest.approx(0.5, rel=0.01)
    assert cost(LONGER, 8, 40) == pytest.approx(1.4 * 3, rel=0.02)  # its kind is slow: so is it
    assert cost.count(CHAIN, 8) == 100
    assert cost.count(CHAIN, 1) == 0


def test_slow_plain_rounds_do_not_make_drafts_look_free():
    """They are rarely seen again while drafting: half of what a draft costs is always believed."""
    cost = rounds()
    for _ in range(100):
        cost.observe(CHAIN, 1, 3, 1.2)
    for _ in range(20):
        cost.observe(NOTHING, 1, 1, 2.0)
    assert cost(NOTHING, 1, 1) == pytest.approx(2.0, rel=0.05)
    assert cost(CHAIN, 1, 3) == pytest.approx(1.1 * 2.0, rel=0.05)


def test_an_outlier_counts_little():
    cost = rounds()
    for _ in range(20):
        cost.observe(CHAIN, 1, 3, 1.2)
    cost.observe(CHAIN, 1, 3, 1000.0)
    assert cost(CHAIN, 1, 3) <= 1.3
    cost.observe(CHAIN, 1, 3, 0.0)
    assert cost(CHAIN, 1, 3) >= 1.1


def test_measuring_leaves_a_curve_of_this_machine():
    cost = measure(TARGET, largest=16)
    seconds = [cost(n) for n in (1, 2, 4, 8, 16)]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < 1

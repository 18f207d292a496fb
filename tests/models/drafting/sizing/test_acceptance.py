"""Acceptance by level, and the tokens that it makes."""

import pytest

from models.drafting.sizing.acceptance import PRIOR_RATE, Acceptance, expected_tokens, widen


def test_levels_not_seen_yet_are_as_the_ones_before():
    seen = Acceptance(4)
    assert seen.rates() == pytest.approx([PRIOR_RATE] * 4)
    for _ in range(500):
        seen.observe(2, 2)
    first, second, third, fourth = seen.rates()
    assert first == pytest.approx(1.0, abs=0.03)
    assert second == third == fourth


def test_a_level_is_judged_where_those_before_it_were_right():
    seen = Acceptance(3)
    for _ in range(1000):
        seen.observe(2, 3)
        seen.observe(0, 1)
    assert seen.rates() == pytest.approx([0.5, 0.97, 0.05], abs=0.06)


def test_what_was_long_ago_is_forgotten():
    seen = Acceptance(1)
    for right in [1] * 1000 + [0] * 300:
        seen.observe(right, 1)
    assert seen.rates()[0] < 0.1


def test_what_is_not_played_fades_towards_what_others_say():
    seen = Acceptance(1)
    for _ in range(100):
        seen.observe(0, 1)
    bad = seen.rates([0.8])[0]
    for _ in range(60):
        seen.fade()
    assert bad < 0.1 < 0.7 < seen.rates([0.8])[0]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
def test_expected_tokens_are_a_geometric_sum(rate):
    for depth in (0, 1, 5):
        assert expected_tokens([rate] * depth) == pytest.approx(
            sum(rate**i for i in range(depth + 1))
        )


def test_few_guesses_are_worth_more_in_a_tree_than_in_a_chain():
    """Measured with the demo pair: 0.66 a level as a chain, 0.74 as a tree of 4x2 with 5 nodes."""
    assert widen(0.66, 1.25) == pytest.approx(0.74, abs=0.02)
    assert widen(0.66, 4.0) == pytest.approx(0.84, abs=0.02)

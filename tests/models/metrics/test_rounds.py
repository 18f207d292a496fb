"""The number of rounds by the chances of drafts, against rounds that are drawn."""

import numpy as np
import pytest
import torch

from models.metrics.agreement import accepted_length
from models.metrics.rounds import rounds_of, run_lengths


def drawn(chances, generator):
    """Rounds of one text, each draft accepted or not by a number of its own place."""
    count, depth = chances.shape
    luck, place, rounds = generator.random(count), 0, 0
    while place < count:
        accepted = 0
        while (
            accepted < depth
            and place + accepted < count
            and luck[place + accepted] < chances[place, accepted]
        ):
            accepted += 1
        place, rounds = place + accepted + 1, rounds + 1
    return rounds


def test_mean_and_variance_are_those_of_drawn_rounds():
    chances = torch.rand(30, 3, generator=torch.Generator().manual_seed(0)).sqrt()
    generator = np.random.default_rng(1)
    found = np.array([drawn(chances.numpy(), generator) for _ in range(20_000)])
    mean, variance = rounds_of(chances)
    assert abs(found.mean() - mean) < 4 * (variance / len(found)) ** 0.5
    assert found.var() == pytest.approx(variance, rel=0.05)


def test_certain_drafts_take_the_fewest_rounds_and_hopeless_ones_the_most():
    assert rounds_of(torch.ones(12, 3)) == (3, 0)
    assert rounds_of(torch.ones(13, 3)) == (4, 0)
    assert rounds_of(torch.zeros(12, 3)) == (12, 0)


def test_the_mean_length_of_a_round_is_that_of_its_chances():
    chances = torch.rand(5, 4, generator=torch.Generator().manual_seed(2))
    lengths = (run_lengths(chances) * torch.arange(1, 6)).sum(-1)
    torch.testing.assert_close(lengths, accepted_length(chances))
    torch.testing.assert_close(run_lengths(chances).sum(-1), torch.ones(5))

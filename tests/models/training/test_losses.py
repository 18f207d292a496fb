"""The losses of drafters: known values, and that they lead where they should."""

import math

import pytest
import torch

from models.metrics.agreement import agreement
from models.training.losses import divergence, match_loss


def test_the_divergence_is_0_for_equal_laws_and_allows_impossible_tokens():
    wanted = torch.tensor([[0.5, 0.5, 0.0]]).log()
    assert divergence(wanted, torch.tensor([[3.0, 3.0, -40.0]])).item() == pytest.approx(
        0, abs=1e-6
    )
    assert divergence(wanted, torch.zeros(1, 3)).item() == pytest.approx(math.log(1.5))


def test_the_match_loss_blends_by_how_often_they_agree():
    wanted = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64).log()
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [-8.0, 8.0]], dtype=torch.float64)
    j = agreement(wanted, logits.log_softmax(-1))
    share = (-3 * j).exp().clamp(min=0.1)
    expected = share * divergence(wanted, logits) - (1 - share) * j.log()
    torch.testing.assert_close(match_loss(wanted, logits), expected)
    assert match_loss(wanted, logits)[1].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [divergence, match_loss])
def test_they_lead_to_the_target(loss):
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(4, 9, generator=generator).log_softmax(-1)
    logits = torch.randn(4, 9, generator=generator).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        loss(wanted, logits).sum().backward()
        optimiser.step()
    assert (agreement(wanted, logits.detach().log_softmax(-1)) > 0.97).all()


def test_a_drafter_too_small_for_the_target_agrees_more_by_the_match_loss():
    """One law for two positions: the divergence covers both, the match loss agrees more."""
    wanted = torch.tensor([[0.90, 0.05, 0.05, 0.0], [0.0, 0.1, 0.3, 0.6]]).clamp(min=1e-6).log()
    found = {}
    for loss in (divergence, match_loss):
        logits = torch.zeros(4, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=0.1)
        for _ in range(150):
            optimiser.zero_grad()
            loss(wanted, logits.expand(2, 4)).sum().backward()
            optimiser.step()
        found[loss] = agreement(wanted, logits.detach().expand(2, 4).log_softmax(-1)).mean()
    assert found[match_loss] > found[divergence]

"""Training pairs: noise that leads to tokens drawn otherwise; the same pairs from any workers."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from models.sampling.flow import FlowMap
from models.students import pairs as module
from models.students.pairs import Records, make_pairs, noise_of
from models.students.prior import token_shares
from models.students.sample import first_guesses, image_noise
from tests.models.students.tables import CODES, EQUAL, records_of, training_of


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_noise_leads_to_tokens_and_is_normal():
    chart = FlowMap(normal(16, 3, seed=1))
    logits = 2 * normal(100, 9, 16, seed=2)
    flat = logits.softmax(-1).flatten(0, 1)
    tokens = torch.multinomial(flat, 1, generator=torch.Generator().manual_seed(3)).view(100, 9)
    noise = noise_of(logits, tokens, np.arange(100), chart)
    reached = chart(flat, noise.flatten(0, 1)) == tokens.flatten()
    assert reached.double().mean() > 0.999
    assert all(kstest(noise[..., c].flatten().numpy(), "norm").pvalue > 1e-3 for c in range(3))


def test_noise_of_one_place():
    """A single row, as the last one that is tried again may be."""
    noise = noise_of(
        normal(1, 1, 4, seed=4),
        torch.tensor([[2]]),
        np.array([9]),
        FlowMap(CODES[:1].expand(4, 1) * torch.arange(4)[:, None]),
    )
    assert noise.shape == (1, 1, 1)


def test_guesses_follow_the_prior():
    records = records_of(2, lambda t: t[:, 0], count=400)
    prior = token_shares(records.classes, records.tokens, num_classes=1, vocab_size=2)
    made = make_pairs(records, EQUAL[0], FlowMap(CODES), prior)
    guesses = first_guesses(FlowMap(CODES), prior, records.classes, made.noise)
    assert torch.equal(guesses, made.guesses)


def test_workers_make_parts_of_the_same_pairs(monkeypatch):
    monkeypatch.setattr(module, "GROUP_NUMBERS", 7 * 4)
    records = records_of(2, lambda t: t[:, 0], count=50)
    prior = torch.full((1, 2, 2), 0.5)
    whole = make_pairs(records, EQUAL[0], FlowMap(CODES), prior)
    parts = [
        make_pairs(records, EQUAL[0], FlowMap(CODES), prior, rank=r, world=3) for r in range(3)
    ]
    assert torch.equal(sum(part.noise for part in parts), whole.noise)
    assert torch.equal(sum(part.guesses for part in parts), whole.guesses)
    assert torch.equal(sum(part.logits for part in parts), whole.logits)


def test_laws_are_kept_where_there_is_room(monkeypatch):
    """A training computes the others again, and learns the same."""
    kept = training_of(EQUAL, steps=2)
    monkeypatch.setattr(module, "KEPT_NUMBERS", 2000 * 2 * 2 - 1)
    again = training_of(EQUAL, steps=2)
    records = records_of(2, lambda t: t[:, 0], count=2000)
    assert make_pairs(records, EQUAL[0], FlowMap(CODES), torch.full((1, 2, 2), 0.5)).logits is None
    for _ in range(2):
        assert kept.step()["loss"] == pytest.approx(again.step()["loss"], rel=1e-6)
    monkeypatch.setattr(module, "KEPT_NUMBERS", 2000 * 2 * 2)
    made = make_pairs(records, EQUAL[0], FlowMap(CODES), torch.full((1, 2, 2), 0.5))
    assert torch.equal(made.logits, EQUAL[0](records.classes, records.tokens))


def test_laws_that_are_kept_are_not_computed_again():
    calls = []

    def counted(classes, tokens):
        calls.append(len(classes))
        return EQUAL[0](classes, tokens)

    training = training_of((counted, *EQUAL[1:]), steps=2, count=100)
    assert calls == [100]
    training.step()
    assert calls == [100]


def test_noise_is_of_seed_and_place():
    some = image_noise([5, 6, 7], 4, 2)
    assert some.shape == (3, 4, 2)
    assert torch.equal(image_noise([6], 4, 2)[0], some[1])
    assert len(some.unique()) == some.numel()


def test_shares_are_of_class_and_place():
    classes = torch.tensor([0, 0, 1])
    tokens = torch.tensor([[0, 1], [0, 2], [2, 2]])
    shares = token_shares(classes, tokens, num_classes=2, vocab_size=3)
    torch.testing.assert_close(shares[0, 0], torch.tensor([2 + 1 / 3, 1 / 3, 1 / 3]) / 3)
    torch.testing.assert_close(shares[1, 1], torch.tensor([1 / 3, 1 / 3, 1 + 1 / 3]) / 2)


def test_records_have_a_length():
    records = Records(classes=torch.zeros(3), tokens=torch.zeros(3, 2), seeds=np.arange(3))
    assert len(records) == 3

"""What a teacher with a known table says of sequences."""

import numpy as np
import pytest
import torch

from models.metrics.likelihood import guided, likelihood, teacher_forced
from models.metrics.rowwise import Mean
from tests.models.tiny import TableTarget

PREFIX = np.array([2, 1])


def sampled(target, count, length, *, temperature=1.0):
    generator, rows = torch.Generator().manual_seed(0), []
    for _ in range(count):
        row = PREFIX.tolist()
        for _ in range(length):
            probs = (target.table[row[-2], row[-1]] / temperature).softmax(-1)
            row.append(int(torch.multinomial(probs, 1, generator=generator)))
        rows.append(np.array(row[len(PREFIX) :]))
    return rows


def scored(target, rows, prefixes=None):
    prefixes = [PREFIX] * len(rows) if prefixes is None else prefixes
    return likelihood(teacher_forced(target), prefixes, rows, vocab_size=target.vocab_size)


def test_prices_are_the_tables():
    target = TableTarget(5, seed=0)
    prefixes = [np.array([3]), np.array([1, 4]), np.array([0, 0, 2])]
    rows = [np.array([0, 1, 1]), np.array([2]), np.array([4, 4, 0, 3])]
    found = scored(target, rows, prefixes)
    for i, (prefix, row) in enumerate(zip(prefixes, rows, strict=True)):
        history, price, entropy = [0, *prefix, *row], 0.0, 0.0
        for place in range(1 + len(prefix), len(history)):
            before = target.table[history[place - 2], history[place - 1]].double()
            logprobs = before.log_softmax(-1)
            price -= float(logprobs[history[place]])
            entropy -= float((logprobs.exp() * logprobs).sum())
        assert found.nll[i] == pytest.approx(price, rel=1e-6)
        assert found.expected[i] == pytest.approx(entropy, rel=1e-6)
    assert found.counts.tolist() == [3, 1, 4]


def test_batches_change_nothing(monkeypatch):
    target = TableTarget(5, seed=0)
    rows = [row[: 1 + i % 4] for i, row in enumerate(sampled(target, 11, 4))]
    whole = scored(target, rows)
    monkeypatch.setattr("models.metrics.likelihood.MAX_LOGITS", 40)
    parts = scored(target, rows)
    np.testing.assert_array_equal(whole.nll, parts.nll)
    np.testing.assert_array_equal(whole.expected, parts.expected)


def test_a_teacher_expects_the_price_of_its_own_samples_and_of_no_others():
    target = TableTarget(5, seed=0)
    every = np.ones((1, 400), dtype=bool)
    excess = {}
    for temperature in (0.7, 1.0, 1.4):
        found = scored(target, sampled(target, 400, 6, temperature=temperature))
        differences = found.nll - found.expected
        error = differences.std() / np.sqrt(400) / 6
        excess[temperature] = Mean(differences, found.counts)(every, every)[0] / error
    assert excess[0.7] < -5
    assert abs(excess[1.0]) < 3
    assert excess[1.4] > 5


def test_guidance_blends_with_the_sequence_after_nothing():
    target = TableTarget(5, seed=0)
    rows = [np.array([0, 1, 1]), np.array([2, 2])]
    score, nothing = teacher_forced(target), np.array([4])
    found = guided(score, 3.0, nothing)([PREFIX, PREFIX], rows)
    for i, row in enumerate(rows):
        bare, full = score([nothing], [row])[0], score([PREFIX], [row])[0]
        torch.testing.assert_close(found[i], bare + 3 * (full - bare))
    for part, whole in zip(guided(score, 1.0, nothing)([PREFIX], rows[:1]), found, strict=False):
        torch.testing.assert_close(part, score([PREFIX], rows[:1])[0])
        assert not torch.equal(part, whole)


def test_a_token_outside_the_vocabulary_is_named():
    with pytest.raises(ValueError, match="row 1: token 5 is outside the vocabulary of 5"):
        scored(TableTarget(5, seed=0), [np.array([0, 1]), np.array([2, 5])])

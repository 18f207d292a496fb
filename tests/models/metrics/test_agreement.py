"""Agreement under shared Gumbel noise: the closed form against sampling, bounds and estimates."""

import pytest
import torch

from models.metrics.agreement import (
    acceptance,
    accepted_length,
    agreement,
    agreement_at,
    same_likeliest,
)


def laws(rows, vocab_size, *, spread=1.5, seed=0, apart=1.0):
    """Log-probabilities of a target and a drafter, [rows, V] float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(rows, vocab_size, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, vocab_size, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1), (logits + apart * noise).log_softmax(-1)


def gumbel(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return -torch.rand(shape, generator=generator, dtype=torch.float64).log().neg().log()


def direct(log_p, log_q):
    """[V] of one row, by the sum over all pairs of tokens."""
    p, q = log_p.exp(), log_q.exp()
    larger = torch.maximum(p[:, None] / p[None], q[:, None] / q[None])  # [u, v]
    return 1 / (p * larger.sum(0))


def test_it_is_the_sum_over_all_pairs():
    log_p, log_q = laws(8, 11)
    for p, q, found in zip(log_p, log_q, agreement_at(log_p, log_q), strict=True):
        torch.testing.assert_close(found, direct(p, q))


def test_it_is_how_often_both_choose_the_same_token():
    log_p, log_q = laws(1, 6)
    noise = gumbel((200_000, 6), seed=1)
    target, draft = (log_p + noise).argmax(-1), (log_q + noise).argmax(-1)
    share = (target == draft).double().mean()
    spread = float((share * (1 - share) / len(noise)) ** 0.5)
    assert abs(float(share - agreement(log_p, log_q)[0])) < 4 * spread
    chances = agreement_at(log_p, log_q)[0]
    for token in range(6):
        there = target == token
        share = (draft[there] == token).double().mean()
        spread = float((chances[token] * (1 - chances[token]) / there.sum()) ** 0.5)
        assert abs(float(share - chances[token])) < 4 * spread + 1e-9


def test_it_lies_between_its_bounds_and_is_1_for_equal_laws():
    log_p, log_q = laws(200, 30)
    alpha, j = acceptance(log_p, log_q), agreement(log_p, log_q)
    assert (j <= alpha + 1e-12).all()
    assert (j >= alpha / (2 - alpha) - 1e-12).all()
    torch.testing.assert_close(agreement(log_p, log_p), torch.ones(200, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_impossible_tokens_are_never_agreed_on(dtype):
    log_p = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=dtype).log()
    log_q = torch.tensor([[0.0, 0.5, 0.5, 0.0]], dtype=dtype).log()
    # 1 / (1 + 1 + 1): the union of three halves, of which one is common
    torch.testing.assert_close(agreement(log_p, log_q), torch.tensor([1 / 3], dtype=dtype))
    assert agreement_at(log_p, log_q)[0, 0] == 0
    assert agreement(log_p, torch.tensor([[0.0, 0.0, 0.5, 0.5]], dtype=dtype).log()).item() == 0


def test_float32_is_close_to_float64_for_large_vocabularies():
    log_p, log_q = laws(4, 20_000, spread=4.0)
    found = agreement(log_p.float(), log_q.float())
    torch.testing.assert_close(found.double(), agreement(log_p, log_q), rtol=0, atol=1e-5)


def test_its_gradient_is_that_of_finite_differences():
    log_p, log_q = laws(3, 7)
    logits = log_q.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: agreement(log_p, x.log_softmax(-1)), (logits,))


def test_same_likeliest_is_what_match_accepts_at_temperature_0():
    log_p, log_q = laws(50, 5)
    found = same_likeliest(log_p, log_q)
    pairs = zip(log_p, log_q, strict=True)
    assert found.tolist() == [int(p.argmax()) == int(q.argmax()) for p, q in pairs]


def test_accepted_length_is_unbiased_where_a_product_of_means_is_not():
    """Two steps; the second one's laws depend on the target's first token."""
    first_p, first_q = laws(1, 3, seed=3, apart=2.0)
    second_p, second_q = laws(3, 3, seed=4, apart=2.0)
    # exactly: over the target's first and second token
    first, second = agreement_at(first_p, first_q)[0], agreement_at(second_p, second_q)
    expected = 0.0
    for v in range(3):
        for w in range(3):
            chance = float(first_p[0, v].exp() * second_p[v, w].exp())
            expected += chance * float(accepted_length(torch.stack([first[v], second[v, w]])))
    noise = gumbel((100_000, 2, 3), seed=5)
    target = (first_p + noise[:, 0]).argmax(-1)
    then = (second_p[target] + noise[:, 1]).argmax(-1)
    same = (first_q + noise[:, 0]).argmax(-1) == target
    both = same & ((second_q[target] + noise[:, 1]).argmax(-1) == then)
    lengths = 1 + same.double() + both.double()
    assert abs(float(lengths.mean()) - expected) < 4 * float(lengths.std()) / 100_000**0.5
    means = agreement(first_p, first_q)[0] * (first_p.exp() @ agreement(second_p, second_q))[0]
    assert abs(float(1 + agreement(first_p, first_q)[0] + means) - expected) > 0.005

"""How often a drafter's token is accepted: from the laws of target and drafter, in closed form.

Letters: V vocabulary, K depths of a chain, `...` any number of positions.
"""

import torch
from torch.nn import functional as F

BLOCK = 256  # numbers that one matrix product sums


def agreement_at(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """The chance that `match` accepts, given the target's token, for each token it may be.

    Target and drafter take argmax(log p + g) and argmax(log q + g) with the same Gumbel noise g.
    Given that the target's token is v, the drafter's is v with the chance
    1 / (p_v Σ_u max(p_u / p_v, q_u / q_v)). Tokens in the order of p / q turn the sum over u into
    two running sums. Gradients go through these sums, with the order fixed.

    Args:
        log_p: [..., V] log-probabilities (nats) of the target; -inf: never.
        log_q: [..., V] of the drafter.
    Returns:
        [..., V] in [0, 1]; 0 where q is 0.
    Source: Moulton and Jiang 2018 (P-MinHash, arXiv 1809.04052); Daliri et al. 2024, arXiv
    2408.07978, for the coupling.
    """
    ratio = (log_p - log_q).detach().masked_fill(log_p == -torch.inf, -torch.inf)
    order = ratio.argsort(dim=-1, descending=True)
    p, q = log_p.exp().gather(-1, order), log_q.exp().gather(-1, order)
    before = running_sums(p)  # of p, where p / q is at least this token's
    behind = (running_sums(q.flip(-1)).flip(-1) - q).clamp(min=0)  # of q, where it is less
    tiny = torch.finfo(p.dtype).tiny
    chance = (q / (before * q + behind * p).clamp(min=tiny)).clamp(max=1)
    return torch.zeros_like(chance).scatter(-1, order, chance)


def agreement_on(
    log_p: torch.Tensor, log_q: torch.Tensor, tokens: torch.Tensor, temperatures: torch.Tensor
) -> torch.Tensor:
    """[M] the chance that `match` accepts, given the target's tokens [M], at temperatures [M].

    `log_p`, `log_q` [M, V] are the laws at temperature 1. At temperature 0 both choose the
    likeliest token, so a token is accepted if it is the drafter's likeliest one.
    """
    greedy = temperatures == 0
    p, q = (at_temperature(each, temperatures) for each in (log_p, log_q))
    sampled = agreement_at(p, q).gather(-1, tokens[:, None])[:, 0]
    return torch.where(greedy, (log_q.argmax(-1) == tokens).to(sampled.dtype), sampled)


def at_temperature(log_p: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    """[M, V] laws at temperatures [M] from those at temperature 1, which stay as they are at 0."""
    scale = temperatures.masked_fill(temperatures == 0, 1)[:, None]
    return (log_p / scale).log_softmax(-1)


def agreement(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """[...] J: the chance that `match` accepts the drafter's token at temperature 1.

    The probability Jaccard index of the two laws [..., V], between (1 - TV) / (1 + TV) and 1 - TV.
    """
    return (log_p.exp() * agreement_at(log_p, log_q)).sum(-1)


def acceptance(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """[...] alpha: the chance that `rejection` accepts a token, 1 - TV of the laws [..., V]."""
    return torch.minimum(log_p, log_q).exp().sum(-1)


def same_likeliest(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """[...] bool: whether `match` accepts at temperature 0. Its mean is G."""
    return log_p.argmax(-1) == log_q.argmax(-1)


def accepted_length(chances: torch.Tensor) -> torch.Tensor:
    """[...] tokens per round of a chain of K draft tokens, the bonus token included.

    Args:
        chances: [..., K] that each draft token is accepted, given the target's own tokens so far.
            At temperature 1 the chances at the target's tokens (`agreement_at`) give an unbiased
            estimate; means over positions, multiplied, do not.
    """
    return 1 + chances.cumprod(-1).sum(-1)


def running_sums(x: torch.Tensor) -> torch.Tensor:
    """[..., V] the sum of each number and those before it, always in the same order.

    torch's own on the CPU. CUDA has none whose order is fixed: there, sums within blocks and those
    of the blocks before are products with triangles of ones.
    """
    if x.is_cpu:
        return x.cumsum(-1)
    size = x.shape[-1]
    if size <= BLOCK:
        return x @ torch.ones(size, size, dtype=x.dtype, device=x.device).triu()
    blocks = F.pad(x, (0, -size % BLOCK)).unflatten(-1, (-1, BLOCK))
    within = running_sums(blocks)
    whole = within[..., -1]
    sums = within + (running_sums(whole) - whole)[..., None]
    return sums.flatten(-2)[..., :size]

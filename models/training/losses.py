"""What training lowers: the distance of laws from the target's.

A law of the target may have one column more than a drafter's: the chance of all tokens that the
drafter cannot choose.
Letters: V vocabulary of the drafter, W = V or V + 1, `...` positions.
"""

import torch
from torch.nn import functional as F

from models.metrics.agreement import agreement

LEAST_SHARE = 0.1  # of the divergence in `match_loss`, where target and drafter agree well
SHARPNESS = 3.0  # how fast its share falls as they agree more


def divergence(wanted: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(p | q) of log-probabilities `wanted` [..., W] and unnormalised logits [..., V]: [...].

    A column more adds nothing, since no drafter can lower it; so a place counts by the chance of
    the tokens that can be chosen there.
    """
    wanted = wanted[..., : logits.shape[-1]]
    missing = wanted == -torch.inf
    gap = wanted.masked_fill(missing, 0) - logits.log_softmax(-1)
    return (wanted.exp() * gap).sum(-1)


def match_loss(wanted: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """[...] λ KL(p | q) - (1 - λ) log J: what decides under `match`, as soon as laws are close.

    J is the chance that the drafter's token is accepted. Where it is small, log J is steep, so the
    divergence leads: λ = exp(-3 J), at least 0.1.

    Args:
        wanted: [..., W] log-probabilities of the target.
        logits: [..., V] of the drafter, unnormalised.
    Source: the blend of LK losses (arXiv 2602.23881), with J in the place of alpha.
    """
    beyond = wanted.shape[-1] - logits.shape[-1]
    log_q = F.pad(logits.log_softmax(-1), (0, beyond), value=-torch.inf)
    chance = agreement(wanted, log_q)  # [...]
    share = (-SHARPNESS * chance.detach()).exp().clamp(min=LEAST_SHARE)
    tiny = torch.finfo(chance.dtype).tiny
    return share * divergence(wanted, logits) - (1 - share) * chance.clamp(min=tiny).log()

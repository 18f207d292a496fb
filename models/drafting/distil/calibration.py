"""Fits how far a drafter's values are to be trusted: see models/drafting/sharpness.py.

Letters: M places, V vocabulary.
"""

import torch

TRIED = tuple(0.5 + 0.25 * step for step in range(15))  # 0.5 to 4


def best_sharpness(log_p: torch.Tensor, log_q: torch.Tensor, generator: torch.Generator) -> float:
    """The s for which softmax(s * value) predicts the target's token best, of TRIED.

    Values and tokens are those of `match` at temperature 0 and at temperature 1, where both add
    the same Gumbel noise. Both temperatures count the same.

    Args:
        log_p: [M, V] log-probabilities of the target.
        log_q: [M, V] those of the drafter.
    """
    noise = -torch.empty_like(log_p).exponential_(generator=generator).log()
    told = [(log_p, log_q), (log_p + noise, log_q + noise)]
    losses = [sum(_loss(s * values, wanted) for wanted, values in told) for s in TRIED]
    return TRIED[losses.index(min(losses))]


def _loss(values: torch.Tensor, wanted: torch.Tensor) -> float:
    """Mean surprise at the largest of `wanted`, by the softmax of `values`, where it is finite."""
    chosen = wanted.argmax(-1, keepdim=True)
    found = values.log_softmax(-1).gather(-1, chosen)
    known = found[found > -torch.inf]  # no tree holds a token that cannot be drafted
    return float(-known.mean()) if len(known) else 0.0

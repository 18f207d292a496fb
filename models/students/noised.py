"""A law over codes, seen through Gaussian noise: what is known of the code behind a noised one.

A code q becomes x = (1 - t) q + t ε with standard normal ε, at a time t in (0, 1]. For a law over
V codes, mean, velocity and score of x have closed forms, so a teacher's laws need no network here.
Source: Liu et al. 2025, Distilled Decoding 2; the rectified flow of models/sampling/flow.py.
Letters: V codes of width C, `...` places.
"""

import torch


def noised(q: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """x at the times t [..., 1] of vectors q [..., C] with noise [..., C]."""
    return (1 - t) * q + t * noise


def mean_given(
    logits: torch.Tensor, codes: torch.Tensor, x: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """The mean of q, given x: codes weighted by p_j N(x; (1 - t) c_j, t² I).

    Args:
        logits: [..., V] of the law; -inf: never. codes: [V, C].
        x: [..., C] at the times t [..., 1], in (0, 1].
    Returns:
        [..., C].
    """
    keep = 1 - t
    near = keep * (x @ codes.T) - keep.square() * codes.square().sum(-1) / 2  # [..., V]
    weights: torch.Tensor = (logits + near / t.square()).softmax(-1)
    return weights @ codes


def velocity(mean: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """dx/dt of the rectified flow at x, given the mean of q: the mean of ε - q."""
    return (x - mean) / t


def score(mean: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The gradient of the logarithm of x's density, given the mean of q."""
    return ((1 - t) * mean - x) / t.square()

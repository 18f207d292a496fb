"""The energy distance of two samples of points: 0 in the mean if their laws are equal."""

import torch


def energy_distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Twice the mean distance between the samples, minus the mean distance within each.

    Args:
        found: [N, F]. wanted: [M, F]. At least two points each.
    Source: Székely and Rizzo 2013, Energy statistics, without the pairs of a point with itself.
    """
    across = torch.cdist(found, wanted).double().mean()
    within = [_within(points) for points in (found, wanted)]
    return float(2 * across - within[0] - within[1])


def _within(points: torch.Tensor) -> torch.Tensor:
    count = len(points)
    return torch.cdist(points, points).double().sum() / (count * (count - 1))

"""The energy distance of two samples."""

import torch

from models.metrics.energy import energy_distance


def test_it_is_0_for_equal_laws_and_grows_with_the_distance():
    a, b = torch.randn(2, 800, 3, generator=torch.Generator().manual_seed(0))
    apart = [energy_distance(a, b + shift) for shift in (0.0, 0.5, 1.0)]
    assert abs(apart[0]) < 0.02
    assert 0.05 < apart[1] < apart[2]


def test_it_sees_a_law_that_lost_variety():
    """All points at the mean, and all points twice as far from it."""
    a, b = torch.randn(2, 800, 3, generator=torch.Generator().manual_seed(1))
    assert energy_distance(0.2 * a, b) > 0.1
    assert energy_distance(2.0 * a, b) > 0.1


def test_two_points_are_compared_as_the_formula_says():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    # distances across: 1, 5, 1, 3; within: 2 and 4
    assert energy_distance(a, b) == 2 * 2.5 - 2 - 4

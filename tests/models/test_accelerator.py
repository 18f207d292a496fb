"""The other device of the tests is one: it refuses what CUDA refuses, and computes as the CPU."""

import copy

import pytest
import torch
from torch import nn

WRONG = "Expected all tensors to be on the same device"


@pytest.mark.parametrize(
    "mix",
    [
        lambda own, other: own + other,
        lambda own, other: own @ other,
        lambda own, other: torch.cat([own, other]),
        lambda own, other: own.gather(1, other.long().abs() % 3),
        lambda own, other: nn.functional.embedding(other.long().abs() % 3, own),
    ],
)
def test_tensors_of_both_devices_do_not_mix(accel, mix):
    other = torch.randn(3, 3)
    own = other.to(accel)
    mix(own, own)
    with pytest.raises(RuntimeError, match=WRONG):
        mix(own, other)


def test_what_cuda_allows_is_allowed(accel):
    other = torch.arange(6.0).view(2, 3)
    own = other.to(accel)
    assert own.device == accel
    assert torch.equal((own * torch.tensor(2.0)).cpu(), other * 2)
    assert torch.equal(own[torch.tensor([1])].cpu(), other[1:])
    own[0, :2] = torch.zeros(2)
    assert own.tolist() == [[0, 0, 2], [3, 4, 5]]
    with pytest.raises(TypeError, match="can't convert accel:0 device type tensor to numpy"):
        own.numpy()
    with pytest.raises(RuntimeError, match="indices should be either on cpu"):
        other[torch.tensor([1], device=accel)]


def test_gradients_are_those_of_the_cpu(accel):
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.SiLU(), nn.Linear(6, 2))
    other, x = copy.deepcopy(one).to(accel), torch.randn(5, 4)
    one(x).square().sum().backward()
    other(x.to(accel)).square().sum().backward()
    for found, wanted in zip(other.parameters(), one.parameters(), strict=True):
        assert found.grad.device == accel
        torch.testing.assert_close(found.grad.cpu(), wanted.grad)


def test_complex_numbers_have_their_gradients(accel):
    """Their conjugates are views of the same memory."""
    x, turn = torch.randn(3, 2), torch.randn(3, 2)
    found = []
    for device in (torch.device("cpu"), accel):
        own = x.clone().to(device).requires_grad_()
        product = torch.view_as_complex(own) * torch.view_as_complex(turn.to(device))
        product.real.square().sum().backward()
        found.append(own.grad.cpu())
    assert torch.equal(*found)


def test_sums_in_an_order_by_chance_are_refused(accel):
    with pytest.raises(RuntimeError, match="cumsum does not have a deterministic implementation"):
        torch.ones(3, device=accel).cumsum(-1)
    assert torch.ones(3, dtype=torch.int64, device=accel).cumsum(-1).tolist() == [1, 2, 3]


def test_it_is_there_for_those_who_ask(accel):
    assert torch.accelerator.is_available()


def test_and_for_no_others():
    assert not torch.accelerator.is_available()

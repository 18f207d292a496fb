"""What a training process asks of torch, and what stands in the place of sums without an order."""

import os

import pytest
import torch

from models.metrics.agreement import agreement_at, running_sums
from models.training import determinism
from models.training.determinism import WORKSPACE, be_deterministic


@pytest.mark.parametrize(("kind", "workspace"), [("cpu", None), ("cuda", ":4096:8")])
def test_cublas_gets_its_workspace_on_gpus(monkeypatch, kind, workspace):
    asked = []
    monkeypatch.setattr(determinism.torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setenv(WORKSPACE, "x")  # so that it is restored
    del os.environ[WORKSPACE]
    be_deterministic(torch.device(kind))
    assert asked == [True]
    assert os.environ.get(WORKSPACE) == workspace


@pytest.mark.parametrize("size", [1, 50, 256, 257, 70_000])
def test_running_sums_have_a_fixed_order(accel, size):
    """Two levels of blocks are enough for 65,536 numbers."""
    x = torch.rand(2, size, generator=torch.Generator().manual_seed(0))
    own = x.to(accel).requires_grad_()
    found = running_sums(own)
    torch.testing.assert_close(found.detach().cpu(), x.cumsum(-1), rtol=1e-5, atol=1e-5)
    found[0, -1].backward()
    assert torch.equal(own.grad.cpu(), torch.tensor([[1.0], [0.0]]).expand(2, size))


def test_agreement_is_the_same(accel):
    log_p, log_q = torch.randn(2, 3, 600, generator=torch.Generator().manual_seed(1)).log_softmax(
        -1
    )
    found = agreement_at(log_p.to(accel), log_q.to(accel)).cpu()
    torch.testing.assert_close(found, agreement_at(log_p, log_q), rtol=1e-4, atol=1e-5)

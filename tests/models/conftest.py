"""Tiny models: one thread is as fast as two, and much faster on a machine that is shared."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from models.compute.x86 import kernels
from models.sampling.noise import NoiseStore
from tests.models.accelerator import accelerator


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@contextmanager
def _arithmetic(kind: str) -> Iterator[None]:
    if kind == "compiled" and not kernels.compiled():
        pytest.skip("no compiled kernels here")
    with pytest.MonkeyPatch.context() as patch:
        if kind == "torch":
            patch.setattr(kernels, "_kernels", None)
        yield


@pytest.fixture(params=["compiled", "torch"])
def arithmetic(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways that a CPU may do the same work."""
    with _arithmetic(request.param):
        yield


@pytest.fixture(scope="module", params=["compiled", "torch"])
def arithmetic_of_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """For fixtures that many tests share."""
    with _arithmetic(request.param):
        yield


@pytest.fixture
def little_noise_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """For thousands of requests of a few tokens: drawing far ahead would take half of the time."""
    monkeypatch.setattr(NoiseStore, "NUMBERS", 32)


@pytest.fixture
def accel() -> Iterator[torch.device]:
    """Another device, with deterministic algorithms alone, as in a training process."""
    switch = torch._C._set_deterministic_algorithms  # torch's own function imports Inductor
    with accelerator() as device:
        switch(True, warn_only=False)
        yield device
        switch(False, warn_only=False)

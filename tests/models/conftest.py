"""Tiny models: one thread is as fast as two, and much faster on a machine that is shared."""

import pytest
import torch

from models.noise import NoiseStore


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def little_noise_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """For thousands of requests of a few tokens: drawing far ahead would take half of the time."""
    monkeypatch.setattr(NoiseStore, "NUMBERS", 32)

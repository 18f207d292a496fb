"""Tiny models: one thread is as fast as two, and much faster on a machine that is shared."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)

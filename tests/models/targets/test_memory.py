import numpy as np
import pytest
import torch

from models.engine_config import EngineConfig
from models.targets.out_of_memory import OutOfMemory, memory_explained

CONFIG = EngineConfig(target="t", batch_size=12)
TOO_MANY = 10**15


@pytest.mark.parametrize("allocate", [torch.zeros, np.zeros])
def test_what_an_allocator_says_becomes_advice(allocate: type) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"while loading: lower --batch-size \(now 12\)"),
        memory_explained("loading", CONFIG),
    ):
        allocate(TOO_MANY)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_explained("loading", CONFIG):
        raise RuntimeError("shapes do not fit")

"""The layout of torch's passes: what it takes for a chunk of a long prompt."""

import numpy as np
import pytest
import torch

from models.batch import chain
from models.memory.cache import KVCache
from models.memory.layout import lay_out
from tests.models.decoders import CONFIG

CHUNK = 256


def layout_of(length):
    """A chunk of a prompt after `length` tokens that were read."""
    sizes = {"dtype": torch.float32, "device": torch.device("cpu")}
    cache = KVCache(CONFIG, 1, length + CHUNK, **sizes)
    assert cache.reserve(0, length + CHUNK)
    cache.lengths[0] = length
    return lay_out(chain(0, np.arange(CHUNK)), cache, group=2, window=None)


@pytest.mark.parametrize("length", [8_192, 131_072 - CHUNK])
def test_a_chunks_mask_grows_with_the_prompt_and_not_with_its_square(length):
    layout = layout_of(length)
    assert layout.seen.shape == (1, CHUNK, layout.num_keys)
    assert layout.num_keys < length + 8 * 64 + CHUNK
    seen = layout.seen[0].sum(-1)
    assert torch.equal(seen, torch.arange(length + 1, length + CHUNK + 1))

"""The cache's own book-keeping; what a decoder makes of it is tested with the decoder."""

import numpy as np
import pytest
import torch

from models.memory.cache import BLOCK, KVCache, bytes_per_entry, cache_bytes, padded
from models.targets.decoder.config import DecoderConfig

CONFIG = DecoderConfig(
    architecture="any",
    vocab_size=10,
    width=8,
    inner_width=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    context_length=64,
)


@pytest.fixture
def cache():
    """Three rows whose every entry carries its slot's number."""
    made = KVCache(CONFIG, 3, 20, dtype=torch.float32, device=torch.device("cpu"))
    made.kv += torch.arange(made.kv.shape[4])[:, None]
    return made


def _entries(cache, row):
    kept = cache.kv[:, :, row, :, : int(cache.lengths[row])]
    slots = kept[0, 0, 0, :, 0].tolist()
    assert (kept == torch.tensor(slots)[:, None]).all()  # all layers, keys, values and heads agree
    return slots


@pytest.mark.parametrize("path", [[], [0], [0, 1, 2], [0, 2, 5], [3], [1, 2]])
def test_commit_keeps_the_path_in_order(cache, path):
    cache.commit(1, np.arange(4))
    cache.commit(1, np.array(path, dtype=np.int64))
    assert _entries(cache, 1) == [0, 1, 2, 3, *[4 + node for node in path]]
    assert cache.lengths.tolist() == [0, 4 + len(path), 0]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_commit_moves_entries_of_its_row_alone(dtype):
    made = KVCache(CONFIG, 3, 20, dtype=dtype, device=torch.device("cpu"))
    made.kv.copy_(torch.randn(made.kv.shape, generator=torch.Generator().manual_seed(0)))
    before = made.kv.clone()
    made.commit(1, np.arange(3))
    made.commit(1, np.array([0, 1, 4, 6, 9]))
    assert torch.equal(made.kv[:, :, 1, :, :8], before[:, :, 1, :, [0, 1, 2, 3, 4, 7, 9, 12]])
    assert torch.equal(made.kv[:, :, [0, 2]], before[:, :, [0, 2]])
    assert torch.equal(made.kv[:, :, 1, :, 8:], before[:, :, 1, :, 8:])


def test_truncate_and_move(cache):
    cache.commit(0, np.arange(3))
    cache.commit(2, np.array([1, 3, 4, 6, 7]))
    cache.truncate(2, 4)
    cache.move(2, 0)
    assert cache.lengths.tolist() == [4, 0, 0]
    assert _entries(cache, 0) == [1, 3, 4, 6]
    cache.move(0, 0)
    assert cache.lengths.tolist() == [4, 0, 0]


def test_size_is_known_beforehand(cache):
    assert cache.rows == 3
    assert cache.capacity == 20
    assert bytes_per_entry(CONFIG, torch.float32) == 2 * 2 * 2 * 4 * 4
    assert cache.num_bytes == cache_bytes(CONFIG, torch.float32, 3, 20)


def test_padding_is_whole_blocks_and_grows_with_the_entries():
    sizes = [padded(entries) for entries in range(1, 2000)]
    assert all(size >= entries for entries, size in enumerate(sizes, start=1))
    assert all(size % BLOCK == 0 for size in sizes)
    assert sizes == sorted(sizes)
    assert not {size % 512 for size in sizes} & {256, 320}

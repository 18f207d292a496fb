"""The cache's own book-keeping; what a decoder makes of it is tested with the decoder."""

import numpy as np
import pytest
import torch

from models.memory.blocks import BLOCK
from models.memory.cache import KVCache, bytes_per_entry, cache_bytes, padded
from models.targets.decoder.config import DecoderConfig
from tests.models.entries import entries

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


def make(rows=3, capacity=20, dtype=torch.float32, **options):
    return KVCache(CONFIG, rows, capacity, dtype=dtype, device=torch.device("cpu"), **options)


@pytest.fixture
def cache():
    """Three rows, in blocks out of order, whose every entry carries its place's number."""
    made = make()
    for row in (2, 0, 1):
        assert made.reserve(row, 20)
        places = made.slots(row, np.arange(20))
        made.kv.flatten(3, 4)[:, :, :, places] = torch.arange(20.0)[:, None]
    return made


def _entries(cache, row):
    kept = entries(cache, row)
    places = kept[0, 0, 0, :, 0].tolist()
    assert (kept == torch.tensor(places)[:, None]).all()  # all layers, keys, values, heads agree
    return places


@pytest.mark.parametrize("path", [[], [0], [0, 1, 2], [0, 2, 5], [3], [1, 2]])
def test_commit_keeps_the_path_in_order(cache, path):
    cache.commit(1, np.arange(4))
    cache.commit(1, np.array(path, dtype=np.int64))
    assert _entries(cache, 1) == [0, 1, 2, 3, *[4 + node for node in path]]
    assert cache.lengths.tolist() == [0, 4 + len(path), 0]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("start", [3, 60, 125])  # within a block, and from one block to the next
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_commit_moves_entries_of_its_row_alone(dtype, start):
    made, size = make(capacity=140, dtype=dtype), 140
    for entries_of_all in (70, size):  # the rows' blocks alternate
        for row in range(3):
            assert made.reserve(row, entries_of_all)
    made.kv.copy_(torch.randn(made.kv.shape, generator=torch.Generator().manual_seed(0)))
    before = [entries(made, row, size) for row in range(3)]
    made.commit(1, np.arange(start))
    made.commit(1, np.array([0, 1, 4, 6, 9]))
    kept = [*range(start), *(start + node for node in (0, 1, 4, 6, 9))]
    after = [entries(made, row, size) for row in range(3)]
    assert torch.equal(after[1][:, :, :, : start + 5], before[1][:, :, :, kept])
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[2], before[2])
    assert torch.equal(after[1][:, :, :, start + 5 :], before[1][:, :, :, start + 5 :])


def test_truncate_and_move(cache):
    cache.commit(0, np.arange(3))
    cache.commit(2, np.array([1, 3, 4, 6, 7]))
    cache.truncate(2, 4)
    cache.move(2, 0)
    assert cache.lengths.tolist() == [4, 0, 0]
    assert _entries(cache, 0) == [1, 3, 4, 6]
    cache.move(0, 0)
    assert cache.lengths.tolist() == [4, 0, 0]


def test_a_move_copies_no_entries(cache):
    cache.commit(2, np.arange(5))
    before, blocks = cache.kv.clone(), cache.tables[2].copy()
    cache.move(2, 0)
    assert torch.equal(cache.kv, before)
    assert cache.tables[0].tolist() == blocks.tolist()


def test_rows_take_blocks_as_they_grow_and_return_them():
    made = make(rows=4, capacity=10 * BLOCK, entries=6 * BLOCK)
    assert made.num_free == 6 * BLOCK
    assert made.reserve(0, 1)
    assert made.reserve(1, BLOCK + 1)
    assert made.reserve(0, BLOCK)  # it is there already
    assert made.num_free == 3 * BLOCK
    assert not made.reserve(2, 3 * BLOCK + 1)
    assert made.num_free == 3 * BLOCK  # a refusal takes nothing
    assert made.reserve(2, 3 * BLOCK)
    assert not made.reserve(3, 1)
    used = [made.tables[row, : made.rooms[row] // BLOCK] for row in range(3)]
    assert sorted(np.concatenate(used).tolist()) == list(range(6))
    made.lengths[2] = 2 * BLOCK + 1
    made.truncate(2, BLOCK + 1)  # the block of its last entry stays
    assert made.num_free == BLOCK
    for row in range(4):
        made.truncate(row, 0)
    assert made.num_free == 6 * BLOCK


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

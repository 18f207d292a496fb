"""Rows with the same text share blocks; what is shared is never written to."""

import numpy as np
import pytest
import torch

from models.memory.blocks import BLOCK, Blocks
from models.memory.cache import LEAST
from tests.models.entries import entries
from tests.models.memory.test_cache import make

TEXT = list(range(1000, 1000 + 4 * BLOCK))


def written(cache, row, tokens):
    """Begin a row and commit the entries of `tokens`, each with its token's number."""
    hit = cache.begin(row, tokens)
    for at in range(hit, len(tokens)):
        assert cache.reserve(row, at + 1)
        cache.kv.flatten(3, 4)[:, :, :, cache.slots(row, np.array([at]))] = float(tokens[at])
        cache.commit(row, np.zeros(1, dtype=np.int64))
    return hit


def held(cache, row):
    return entries(cache, row)[0, 0, 0, :, 0].tolist()


@pytest.fixture
def cache():
    return make(rows=4, capacity=5 * BLOCK, entries=12 * BLOCK)


def test_full_blocks_are_shared_while_in_use_and_after(cache):
    assert written(cache, 0, TEXT) == 0
    free = cache.num_free
    assert cache.begin(1, TEXT) == 4 * BLOCK - 1  # all but the last token, whose node is a root
    assert free - cache.num_free == BLOCK  # the last block is a copy
    assert held(cache, 1) == TEXT[:-1]
    for row in (0, 1):
        cache.truncate(row, 0)
    assert cache.num_free == 12 * BLOCK
    assert cache.begin(2, [*TEXT[: 2 * BLOCK + 5], *TEXT]) == 2 * BLOCK
    assert held(cache, 2) == TEXT[: 2 * BLOCK]


def test_the_rest_of_a_block_is_copied_from_a_row_that_has_it(cache):
    written(cache, 0, TEXT[: BLOCK + 40])
    assert cache.begin(1, TEXT[: BLOCK + 30]) == BLOCK + 29
    assert cache.tables[0, 0] == cache.tables[1, 0]
    assert cache.tables[0, 1] != cache.tables[1, 1]
    assert held(cache, 1) == TEXT[: BLOCK + 29]
    assert cache.begin(2, [*TEXT[: BLOCK + LEAST], *TEXT]) == BLOCK + LEAST
    assert cache.begin(3, [*TEXT[: BLOCK + LEAST - 1], *TEXT]) == BLOCK  # not worth a copy


@pytest.mark.parametrize("text", [[7, *TEXT[1:]], TEXT[:1], TEXT[BLOCK:], TEXT[:LEAST]])
def test_other_texts_share_nothing(cache, text):
    written(cache, 0, TEXT)
    assert cache.begin(1, text) == 0


def test_blocks_of_the_same_tokens_after_others_are_not_the_same(cache):
    written(cache, 0, TEXT[: 2 * BLOCK])
    assert cache.begin(1, [*TEXT[BLOCK : 2 * BLOCK], *TEXT[BLOCK:]]) == 0


def test_rows_that_share_go_their_own_ways(cache):
    ways = [[*TEXT[: BLOCK + 20], *range(row, row + 90)] for row in range(4)]
    hits = [written(cache, row, ways[row]) for row in range(4)]
    assert hits == [0, *[BLOCK + 20] * 3]
    assert [held(cache, row) for row in range(4)] == ways
    assert len(set(cache.tables[:, 0].tolist())) == 1
    assert len(set(cache.tables[:, 1].tolist())) == 4


def test_a_row_that_is_cut_within_a_shared_block_writes_to_a_copy(cache):
    written(cache, 0, TEXT[: 2 * BLOCK])
    written(cache, 1, TEXT[: 2 * BLOCK + 1])
    cache.truncate(1, BLOCK + 3)
    cache.kv.flatten(3, 4)[:, :, :, cache.slots(1, np.array([BLOCK + 3]))] = 5.0
    cache.commit(1, np.zeros(1, dtype=np.int64))
    assert held(cache, 1) == [*TEXT[: BLOCK + 3], 5]
    assert held(cache, 0) == TEXT[: 2 * BLOCK]


def test_the_least_recently_used_prefix_gives_way_last_block_first():
    cache = make(rows=2, capacity=5 * BLOCK, entries=5 * BLOCK)
    other = [token + 5000 for token in TEXT]
    for text in (TEXT[: 2 * BLOCK], other[: 2 * BLOCK], TEXT[: 2 * BLOCK]):
        written(cache, 0, text)
        cache.truncate(0, 0)
    assert cache.reserve(1, 2 * BLOCK)  # takes the block without contents, and one of `other`
    assert cache.begin(0, other[: 2 * BLOCK + 1]) == BLOCK
    cache.truncate(0, 0)
    assert cache.begin(0, TEXT[: 2 * BLOCK + 1]) == 2 * BLOCK


def test_a_move_keeps_what_is_known(cache):
    written(cache, 2, TEXT[: BLOCK + 40])
    cache.move(2, 0)
    assert cache.begin(2, TEXT[: BLOCK + 40]) == BLOCK + 39
    assert not cache.kv.isnan().any()
    assert torch.equal(entries(cache, 2), entries(cache, 0)[:, :, :, :-1])


def test_blocks_at_random_are_counted():
    """Rows that begin, grow, end: a block is free when no table has it, and never twice in use."""
    rng, cache = np.random.default_rng(0), make(rows=6, capacity=3 * BLOCK, entries=9 * BLOCK)
    texts = [TEXT[: 2 * BLOCK], [*TEXT[:BLOCK], *range(BLOCK)], list(range(2 * BLOCK))]
    for _ in range(300):
        row = int(rng.integers(6))
        if cache.rooms[row]:
            cache.truncate(row, 0)
        else:
            text = texts[int(rng.integers(3))]
            cache.begin(row, text)
            if cache.reserve(row, len(text)):
                cache.commit(row, np.arange(len(text) - int(cache.lengths[row])))
        used = {
            block for row in range(6) for block in cache.tables[row, : cache.rooms[row] // BLOCK]
        }
        assert cache.num_free == (9 - len(used)) * BLOCK


def test_a_block_is_found_by_its_contents_until_it_is_taken():
    blocks = Blocks(2)
    first, second = blocks.take(2)
    blocks.note(first, b"a")
    blocks.note(second, b"a")  # the same again
    blocks.release([first, second])
    assert blocks.find(b"a") == first
    assert blocks.is_fixed(first)
    blocks.release([first])
    assert blocks.take(3) is None
    assert sorted(blocks.take(2)) == [first, second]
    assert blocks.find(b"a") is None

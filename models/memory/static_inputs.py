"""Buffers for the inputs of passes of a few fixed sizes, which stay where they are.

A batch is padded to the next size: every row to Q nodes, and the rows to a power of two. A padding
node is a copy of its row's first node, and a padding row is a copy of the first row. So it computes
and writes what that node does, and needs no room of its own. Letters as in layout.py.
"""

from dataclasses import dataclass

import numpy as np
import torch

from models.batch import Batch, Ints
from models.memory.blocks import BLOCK, num_blocks
from models.memory.cache import KVCache, padded
from models.memory.layout import (
    Layout,
    blocks_of,
    lines_for,
    most_keys,
    note_depths,
    places_of,
    positions_of,
    seen_keys,
    slots_of,
)

MOST_NODES = 256  # of all rows together; larger passes gain little from fixed sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A pass over B rows with Q nodes and N keys each."""

    rows: int
    queries: int
    keys: int


def size_for(batch: Batch, cache: KVCache) -> Size | None:
    """The next size: powers of two, keys in whole blocks; None if the batch is too large."""
    rows, queries = _power(len(batch.counts)), _power(int(batch.counts.max()))
    if rows * queries > MOST_NODES:
        return None
    longest = num_blocks(cache.capacity) * BLOCK
    keys = min(_power(num_blocks(most_keys(batch, cache))) * BLOCK, longest)
    return Size(rows=rows, queries=queries, keys=padded(keys))


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


class StaticInputs:
    """The inputs of passes of one size: `tokens` [B * Q] and `layout`, filled batch by batch."""

    def __init__(self, size: Size, group: int, window: int | None, device: torch.device) -> None:
        self._size, self._window = size, window
        num_nodes, used = size.rows * size.queries, size.queries * group

        def room(*sizes: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(sizes, dtype=dtype, device=device)

        self.tokens = room(num_nodes)
        self._blocks = room(size.rows * num_blocks(size.keys))
        self._seen = room(size.rows, size.queries, size.keys, dtype=torch.bool)
        self.layout = Layout(
            positions=room(num_nodes),
            blocks=self._blocks,
            slots=room(num_nodes),
            num_rows=size.rows,
            num_queries=size.queries,
            num_used=used,
            num_lines=lines_for(used, device),
            num_keys=size.keys,
            spread=None,
            pack=None,
            seen=self._seen,
        )

    def fill(self, batch: Batch, cache: KVCache) -> Ints:
        """Copy a batch of at most this size into the buffers; makes room in the cache.

        Returns:
            [T] the place of each packed node among the B * Q nodes of the pass.
        """
        cache.hold(batch)
        note_depths(batch, cache)
        rows, places, nodes, flat = self._spread(batch)
        seen = seen_keys(batch, cache, int(batch.counts.max()), self._size.keys, self._window)
        _copy(self.tokens, batch.tokens[nodes])
        _copy(self.layout.positions, positions_of(batch, cache.lengths[batch.rows])[nodes])
        _copy(self.layout.slots, slots_of(batch, cache)[nodes])
        _copy(self._blocks, blocks_of(batch.rows, cache, self._size.keys)[rows].reshape(-1))
        _copy(self._seen, seen[rows[:, None], places])
        return flat

    def _spread(self, batch: Batch) -> tuple[Ints, Ints, Ints, Ints]:
        """Where the pass takes its nodes from, and where they are.

        Returns:
            [B] index into the batch's rows, [B, Q] index among a row's nodes, [B * Q] packed index,
            [T] place among the B * Q.
        """
        size, counts = self._size, batch.counts
        rows = np.arange(size.rows)
        rows[len(counts) :] = 0
        places = np.arange(size.queries)
        places = np.where(places < counts[rows, None], places, 0)  # [B, Q]
        starts = np.cumsum(counts) - counts
        owner, order = places_of(batch)
        return (
            rows,
            places,
            (starts[rows, None] + places).reshape(-1),
            owner * size.queries + order,
        )


def _copy(buffer: torch.Tensor, values: np.ndarray) -> None:
    buffer.copy_(torch.from_numpy(values))

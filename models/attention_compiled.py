"""Attention by our compiled kernel (models/csrc/attention.c): what it must be told of a batch.

Letters: B rows, T packed nodes, Q nodes of a row, N keys, Hq query heads, D head width.
"""

import numpy as np
import torch

from models.batch import Batch, Bools, Ints
from models.cache import KVCache
from models.heads import Heads
from models.kernels import attend
from models.layout import positions_of
from models.rotary import Rotary


class CompiledAttention:
    """One pass over a cache; see `Attention`."""

    def __init__(self, batch: Batch, cache: KVCache, heads: Heads, rotary: Rotary | None) -> None:
        lengths = cache.lengths[batch.rows]
        first = lengths + batch.scratch  # slots
        assert int((first + batch.counts).max()) <= cache.capacity, (first, batch.counts)
        self._kv, self._heads = cache.kv, heads
        self._positions = positions_of(batch, lengths)
        self._table = None if rotary is None else rotary.table
        self._seen: list[Bools] = []  # the kernel has their addresses
        shared, seen = lengths, list(batch.visible)
        if heads.window is not None:
            note_positions(batch, cache, self._positions, first)
            shared, seen = np.zeros_like(lengths), _in_window(batch, cache, heads.window)
        self._readers = np.empty((len(lengths), 6), dtype=np.int64)  # as in kernels.h
        starts = np.cumsum(batch.counts) - batch.counts
        addresses = [self._address(visible) for visible in seen]
        for column, values in enumerate((starts, batch.counts, batch.rows, first, shared)):
            self._readers[:, column] = values
        self._readers[:, 5] = addresses

    def _address(self, visible: Bools | None) -> int:
        if visible is None:
            return 0
        self._seen.append(np.ascontiguousarray(visible))
        return self._seen[-1].ctypes.data

    def __call__(self, index: int, qkv: torch.Tensor, qk_norm: torch.Tensor | None) -> torch.Tensor:
        kernel = self._heads, self._readers, self._positions, self._table
        return attend(*kernel, qkv, qk_norm, self._kv[index])


def note_positions(batch: Batch, cache: KVCache, positions: Ints, first: Ints) -> None:
    """Tell the cache where the nodes stand that go to slots `first` [B] and on."""
    start = 0
    for row, count, slot in zip(batch.rows, batch.counts.tolist(), first.tolist(), strict=True):
        cache.positions[row, slot : slot + count] = positions[start : start + count]
        start += count


def _in_window(batch: Batch, cache: KVCache, window: int) -> list[Bools | None]:
    """Which keys each node sees, by row: [Q, N]."""
    found: list[Bools | None] = []
    start = 0
    for row, count, visible in zip(
        batch.rows.tolist(), batch.counts.tolist(), batch.visible, strict=True
    ):
        length = int(cache.lengths[row])
        seen = np.ones((count, length + batch.scratch + count), dtype=np.bool_)
        seen[:, length:] = np.tri(count, dtype=np.bool_) if visible is None else visible
        position = length + batch.depths[start : start + count]
        seen &= cache.positions[row, : seen.shape[1]] > position[:, None] - window
        found.append(seen)
        start += count
    return found

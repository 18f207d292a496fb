"""Attention by our compiled kernel (models/csrc/attention.c): what it must be told of a batch.

Letters: B rows, T packed nodes, Q nodes of a row, N keys, Hq query heads, D head width.
"""

import numpy as np
import torch

from models.batch import Batch, Bools
from models.cache import KVCache
from models.heads import Heads
from models.kernels import MOST_QUERIES, Nodes, attend
from models.rotary import Rotary


class CompiledAttention:
    """One pass over a cache; see `Attention`."""

    def __init__(self, batch: Batch, cache: KVCache, heads: Heads, rotary: Rotary | None) -> None:
        self._nodes = nodes_of(batch, cache, heads, rotary)

    def __call__(self, index: int, qkv: torch.Tensor, qk_norm: torch.Tensor | None) -> torch.Tensor:
        return attend(self._nodes, index, qkv, qk_norm)


def nodes_of(batch: Batch, cache: KVCache, heads: Heads, rotary: Rotary | None) -> Nodes:
    """The batch as the kernels are told of it."""
    assert heads.queries <= heads.keys * MOST_QUERIES
    visible = batch.visible
    if heads.window is not None:
        note_positions(batch, cache)
        visible = _in_window(batch, cache, heads.window)
    if any(own is not None for own in visible):
        visible = tuple(None if own is None else np.ascontiguousarray(own) for own in visible)
    return Nodes(
        batch=batch,
        cache=cache,
        heads=heads,
        table=None if rotary is None else rotary.table,
        visible=visible,
        shared=heads.window is None,
    )


def note_positions(batch: Batch, cache: KVCache) -> None:
    """Tell the cache where the nodes stand."""
    lengths, start = cache.lengths[batch.rows], 0
    for row, count, length in zip(batch.rows, batch.counts, lengths, strict=True):
        slot = length + batch.scratch
        cache.positions[row, slot : slot + count] = length + batch.depths[start : start + count]
        start += count


def _in_window(batch: Batch, cache: KVCache, window: int) -> tuple[Bools | None, ...]:
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
    return tuple(found)

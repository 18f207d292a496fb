"""Positions, cache slots and masks of a batch, as tensors for one forward pass with torch.

Letters: B rows, T packed nodes, Q nodes of the longest row, G query heads per key head, M query
lines of one key head (Q * G, rounded up on CPU), N keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from models.batch import Batch, Bools, Ints
from models.memory.blocks import BLOCK, num_blocks
from models.memory.cache import KVCache, padded

LINES = 4  # with fewer query lines, torch's CPU kernel adds in another order


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """`spread` and `pack` are None if every row has Q nodes; then a reshape is enough."""

    positions: torch.Tensor  # [T]
    blocks: int | torch.Tensor  # [B * N / BLOCK] of the keys; the first one if they are in order
    slots: torch.Tensor  # [T] where the nodes' entries go
    num_rows: int
    num_queries: int
    num_used: int  # Q * G
    num_lines: int  # M
    num_keys: int
    spread: torch.Tensor | None  # [B * Q] packed index of each query, 0 where there is none
    pack: torch.Tensor | None  # [T] index into B * Q
    mask: torch.Tensor | None  # [B, 1, M or 1, N] to add to the scores


def positions_of(batch: Batch, lengths: Ints) -> Ints:
    """[T] positions of the nodes, given the committed `lengths` [B] of their rows."""
    positions: Ints = np.repeat(lengths, batch.counts) + batch.depths
    return positions


def note_depths(batch: Batch, cache: KVCache) -> None:
    """Store the depths of the nodes in the cache, for later passes of the same round."""
    for row, places, own in _by_row(batch, cache):
        cache.depths[row, places] = batch.depths[own]


def seen_by_rows(batch: Batch, cache: KVCache, window: int | None) -> Iterator[Bools]:
    """Which keys each node of a row sees, [Q, N], row by row; needs `note_depths` before."""
    for (row, places, own), visible in zip(_by_row(batch, cache), batch.visible, strict=True):
        length, count = int(cache.lengths[row]), own.stop - own.start
        seen = np.ones((count, places.stop), dtype=np.bool_)
        seen[:, length:] = np.tri(count, dtype=np.bool_) if visible is None else visible
        if window is not None:
            positions = np.arange(places.stop)
            positions[length:] = length + cache.depths[row, length : places.stop]
            seen &= positions > length + batch.depths[own, None] - window
        yield seen


def _by_row(batch: Batch, cache: KVCache) -> Iterator[tuple[int, slice, slice]]:
    """By row: its index in the cache, the places of its nodes there, and their packed indices."""
    start = 0
    for row, count in zip(batch.rows.tolist(), batch.counts.tolist(), strict=True):
        place = int(cache.lengths[row]) + batch.scratch
        yield row, slice(place, place + count), slice(start, start + count)
        start += count


def lay_out(batch: Batch, cache: KVCache, *, group: int, window: int | None) -> Layout:
    """The layout of `batch`; makes room in the cache and stores the nodes' depths in it.

    On CPU the layout is padded, so that fewer sums depend on the rest of the batch.
    """
    device = cache.kv.device
    steady = device.type == "cpu"
    lengths, counts = cache.lengths[batch.rows], batch.counts
    num_rows, num_queries = len(counts), int(counts.max())
    used = int((lengths + counts).max()) + batch.scratch
    cache.hold(batch)
    owner = np.repeat(np.arange(num_rows), counts)
    order = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = lengths[owner] + batch.scratch + order
    slots = cache.tables[batch.rows[owner], places // BLOCK] * BLOCK + places % BLOCK
    note_depths(batch, cache)
    alone = num_rows * num_queries == 1
    num_keys = padded(used) if steady or not alone else used
    num_lines = -(-num_queries * group // LINES) * LINES if steady else num_queries * group
    flat = owner * num_queries + order
    ragged = num_rows * num_queries != len(owner)
    mask = None
    if steady or not alone or window is not None:
        seen = _seen(batch, cache, num_queries, num_keys, window)
        mask = _additive(seen, group, num_lines, cache.kv.dtype, device)
    return Layout(
        positions=torch.from_numpy(positions_of(batch, lengths)).to(device),
        blocks=_blocks(batch.rows, cache, num_keys),
        slots=torch.from_numpy(slots).to(device),
        num_rows=num_rows,
        num_queries=num_queries,
        num_used=num_queries * group,
        num_lines=num_lines,
        num_keys=num_keys,
        spread=_spread(flat, num_rows * num_queries, device) if ragged else None,
        pack=torch.from_numpy(flat).to(device) if ragged else None,
        mask=mask,
    )


def _blocks(rows: Ints, cache: KVCache, num_keys: int) -> int | torch.Tensor:
    """The blocks of the keys of `rows` [B], row by row.

    A row with fewer of them repeats its first one: masked keys, but of its own.
    """
    count = num_blocks(num_keys)
    held = cache.rooms[rows, None] // BLOCK
    order = np.arange(count)
    ids = cache.tables[rows[:, None], np.where(order < held, order, 0)].reshape(-1)  # [B * count]
    first = int(ids[0])
    if np.array_equal(ids, np.arange(first, first + len(ids))):
        return first
    return torch.from_numpy(ids).to(cache.kv.device)


def _spread(flat: Ints, size: int, device: torch.device) -> torch.Tensor:
    source = np.zeros(size, dtype=np.int64)
    source[flat] = np.arange(len(flat))
    return torch.from_numpy(source).to(device)


def _seen(
    batch: Batch, cache: KVCache, num_queries: int, num_keys: int, window: int | None
) -> Bools:
    """Which keys each query sees: [B, Q, N]. A padded query sees key 0, to avoid NaN."""
    lengths = cache.lengths[batch.rows]
    slots = np.arange(num_keys)
    if num_queries == 1 and batch.scratch == 0 and window is None:
        alone: Bools = slots <= lengths[:, None, None]
        return alone
    seen = np.zeros((len(lengths), num_queries, num_keys), dtype=np.bool_)
    for row, own in enumerate(seen_by_rows(batch, cache, window)):
        count, keys = own.shape
        seen[row, :count, :keys] = own
        seen[row, count:, 0] = True
    return seen


def _additive(
    seen: Bools, group: int, num_lines: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The additive mask: 0 where a query line sees a key, else -inf: [B, 1, M or 1, N]."""
    num_rows, num_queries, num_keys = seen.shape
    hidden = torch.from_numpy(~seen).to(device)
    if num_queries == 1:
        mask = torch.zeros(num_rows, 1, 1, num_keys, dtype=dtype, device=device)
        return mask.masked_fill_(hidden[:, None], -torch.inf)
    mask = torch.zeros(num_rows, num_lines, num_keys, dtype=dtype, device=device)
    lines = mask[:, : num_queries * group].view(num_rows, num_queries, group, num_keys)
    lines.masked_fill_(hidden[:, :, None], -torch.inf)
    return mask[:, None]

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
    seen: torch.Tensor | None  # [B, Q, N] bool: which keys each query sees; None: all


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
    used = most_keys(batch, cache)
    cache.hold(batch)
    note_depths(batch, cache)
    owner, order = places_of(batch)
    alone = num_rows * num_queries == 1
    num_keys = padded(used) if steady or not alone else used
    num_lines = lines_for(num_queries * group, device)
    flat = owner * num_queries + order
    ragged = num_rows * num_queries != len(owner)
    seen = None
    if steady or not alone or window is not None:
        seen = torch.from_numpy(seen_keys(batch, cache, num_queries, num_keys, window)).to(device)
    return Layout(
        positions=torch.from_numpy(positions_of(batch, lengths)).to(device),
        blocks=_blocks(batch.rows, cache, num_keys),
        slots=torch.from_numpy(slots_of(batch, cache)).to(device),
        num_rows=num_rows,
        num_queries=num_queries,
        num_used=num_queries * group,
        num_lines=num_lines,
        num_keys=num_keys,
        spread=_spread(flat, num_rows * num_queries, device) if ragged else None,
        pack=torch.from_numpy(flat).to(device) if ragged else None,
        seen=seen,
    )


def most_keys(batch: Batch, cache: KVCache) -> int:
    """The number of keys of the longest row, the nodes of the batch included."""
    return int((cache.lengths[batch.rows] + batch.counts).max()) + batch.scratch


def lines_for(used: int, device: torch.device) -> int:
    """The number of query lines to compute for `used` ones."""
    return -(-used // LINES) * LINES if device.type == "cpu" else used


def places_of(batch: Batch) -> tuple[Ints, Ints]:
    """[T] the row (index into the batch) of each node, and its index among the row's nodes."""
    counts = batch.counts
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def slots_of(batch: Batch, cache: KVCache) -> Ints:
    """[T] where the entries of the nodes go in the pool."""
    owner, order = places_of(batch)
    rows = batch.rows[owner]
    places = cache.lengths[rows] + batch.scratch + order
    slots: Ints = cache.tables[rows, places // BLOCK] * BLOCK + places % BLOCK
    return slots


def blocks_of(rows: Ints, cache: KVCache, num_keys: int) -> Ints:
    """[B, num_keys / BLOCK] the blocks of the keys of `rows` [B].

    A row with fewer of them repeats its first one: masked keys, but of its own.
    """
    order = np.arange(num_blocks(num_keys))
    held = cache.rooms[rows, None] // BLOCK
    found: Ints = cache.tables[rows[:, None], np.where(order < held, order, 0)]
    return found


def _blocks(rows: Ints, cache: KVCache, num_keys: int) -> int | torch.Tensor:
    """The blocks of the keys of `rows` [B], row by row."""
    ids = blocks_of(rows, cache, num_keys).reshape(-1)  # [B * N / BLOCK]
    first = int(ids[0])
    if np.array_equal(ids, np.arange(first, first + len(ids))):
        return first
    return torch.from_numpy(ids).to(cache.kv.device)


def _spread(flat: Ints, size: int, device: torch.device) -> torch.Tensor:
    source = np.zeros(size, dtype=np.int64)
    source[flat] = np.arange(len(flat))
    return torch.from_numpy(source).to(device)


def seen_keys(
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

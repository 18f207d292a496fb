"""Where a batch's nodes stand in a cache and what they may see, as tensors for one forward pass.

Letters: B rows, T packed nodes, Q nodes of the longest row, G query heads per key head, M query
lines of one key head (Q * G, rounded up on CPU), N keys.
"""

from dataclasses import dataclass

import numpy as np
import torch

from models.batch import Batch, Bools, Ints
from models.cache import KVCache, padded

LINES = 4  # the CPU kernel adds in another order below so many query lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """`spread` and `pack` are None where every row has Q nodes, so that a reshape does."""

    positions: torch.Tensor  # [T]
    rows: slice | torch.Tensor  # [B] rows of the cache
    slots: slice | tuple[torch.Tensor, torch.Tensor]  # same for all, or of each node
    num_rows: int
    num_queries: int
    num_used: int  # Q * G
    num_lines: int  # M
    num_keys: int
    spread: torch.Tensor | None  # [B * Q] packed index of each query, 0 where there is none
    pack: torch.Tensor | None  # [T] index into B * Q
    mask: torch.Tensor | None  # [B, 1, M or 1, N] to add to the scores


def positions_of(batch: Batch, lengths: Ints) -> Ints:
    """[T] where the nodes stand, behind the committed `lengths` [B] of their rows."""
    positions: Ints = np.repeat(lengths, batch.counts) + batch.depths
    return positions


def lay_out(
    batch: Batch, cache: KVCache, *, group: int, window: int | None, steady: bool
) -> Layout:
    """The layout of `batch`; notes the nodes' positions in the cache.

    `steady`: padded so that a query's result does not depend on what else is in the batch.
    """
    device = cache.kv.device
    lengths, counts = cache.lengths[batch.rows], batch.counts
    num_rows, num_queries = len(counts), int(counts.max())
    used = int((lengths + counts).max()) + batch.scratch
    assert used <= cache.capacity, (used, cache.capacity)
    owner = np.repeat(np.arange(num_rows), counts)
    order = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    positions, slots = lengths[owner] + batch.depths, lengths[owner] + batch.scratch + order
    cache.positions[batch.rows[owner], slots] = positions
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
        positions=torch.from_numpy(positions).to(device),
        rows=_rows(batch.rows, device),
        slots=_slots(batch, owner, slots, lengths, ragged, device),
        num_rows=num_rows,
        num_queries=num_queries,
        num_used=num_queries * group,
        num_lines=num_lines,
        num_keys=num_keys,
        spread=_spread(flat, num_rows * num_queries, device) if ragged else None,
        pack=torch.from_numpy(flat).to(device) if ragged else None,
        mask=mask,
    )


def _rows(rows: Ints, device: torch.device) -> slice | torch.Tensor:
    """A slice where the rows follow each other: a view of the cache instead of a copy."""
    first = int(rows[0])
    if np.array_equal(rows, np.arange(first, first + len(rows))):
        return slice(first, first + len(rows))
    return torch.from_numpy(rows).to(device)


def _slots(
    batch: Batch, owner: Ints, slots: Ints, lengths: Ints, ragged: bool, device: torch.device
) -> slice | tuple[torch.Tensor, torch.Tensor]:
    together = not ragged and (lengths == lengths[0]).all()
    if together and isinstance(_rows(batch.rows, device), slice):
        return slice(int(slots[0]), int(slots[0]) + int(batch.counts[0]))
    rows = torch.from_numpy(batch.rows[owner]).to(device)
    return rows, torch.from_numpy(slots).to(device)


def _spread(flat: Ints, size: int, device: torch.device) -> torch.Tensor:
    source = np.zeros(size, dtype=np.int64)
    source[flat] = np.arange(len(flat))
    return torch.from_numpy(source).to(device)


def _seen(
    batch: Batch, cache: KVCache, num_queries: int, num_keys: int, window: int | None
) -> Bools:
    """Which keys each query sees: [B, Q, N]; a padded query sees key 0, so that it is a number."""
    lengths = cache.lengths[batch.rows]
    slots = np.arange(num_keys)
    if num_queries == 1 and batch.scratch == 0 and window is None:
        alone: Bools = slots <= lengths[:, None, None]
        return alone
    seen = np.repeat(slots < lengths[:, None, None], num_queries, axis=1)
    for row, (start, count, visible) in enumerate(
        zip(lengths.tolist(), batch.counts.tolist(), batch.visible, strict=True)
    ):
        scratch = np.tri(count, dtype=np.bool_) if visible is None else visible
        seen[row, :count, start : start + batch.scratch + count] = scratch
    if window is not None:
        seen &= _near(batch, cache, num_queries, num_keys, window)
    for row, count in enumerate(batch.counts.tolist()):
        seen[row, count:, 0] = True
    return seen


def _near(batch: Batch, cache: KVCache, num_queries: int, num_keys: int, window: int) -> Bools:
    """Which keys lie within the attention window of each query, by position: [B, Q, N]."""
    keys = cache.positions[batch.rows, :num_keys]
    near = np.zeros((len(keys), num_queries, num_keys), dtype=np.bool_)
    start = 0
    for row, count in enumerate(batch.counts.tolist()):
        position = cache.lengths[batch.rows[row]] + batch.depths[start : start + count]
        near[row, :count] = keys[row] > position[:, None] - window
        start += count
    return near


def _additive(
    seen: Bools, group: int, num_lines: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """0 where a query line sees a key and -inf elsewhere: [B, 1, M or 1, N]."""
    num_rows, num_queries, num_keys = seen.shape
    hidden = torch.from_numpy(~seen).to(device)
    if num_queries == 1:
        mask = torch.zeros(num_rows, 1, 1, num_keys, dtype=dtype, device=device)
        return mask.masked_fill_(hidden[:, None], -torch.inf)
    mask = torch.zeros(num_rows, num_lines, num_keys, dtype=dtype, device=device)
    lines = mask[:, : num_queries * group].view(num_rows, num_queries, group, num_keys)
    lines.masked_fill_(hidden[:, :, None], -torch.inf)
    return mask[:, None]

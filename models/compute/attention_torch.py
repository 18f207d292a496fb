"""Attention with torch's operations, all query heads of a key head at a time.

Letters as in layout.py, and Hkv key heads, D width of a head. Query heads are in the order
[G, Hkv], so that a node's queries and results need no reordering.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.batch import Batch
from models.compute.heads import Heads
from models.compute.x86.kernels import rms_norm
from models.memory.blocks import BLOCK, num_blocks
from models.memory.cache import KVCache
from models.memory.layout import Layout, lay_out
from models.targets.decoder.rotary import Rotary


def torch_attention(
    batch: Batch, cache: KVCache, heads: Heads, rotary: Rotary | None
) -> "TorchAttention":
    """The attention of one pass, laid out for exactly this batch."""
    layout = lay_out(batch, cache, group=heads.queries // heads.keys, window=heads.window)
    return TorchAttention(layout, cache.kv, heads, None if rotary is None else rotary.table)


class TorchAttention:
    """One pass over a cache; see `Attention`.

    It reads nothing but tensors, and no shape depends on what they hold, so a pass can be compiled
    or captured as one graph.
    """

    def __init__(
        self, layout: Layout, kv: torch.Tensor, heads: Heads, table: torch.Tensor | None
    ) -> None:
        """`kv`: of a `KVCache`. `table`: of a `Rotary`; None: positions do not rotate."""
        self._heads, self._layout = heads, layout
        self._rotation = None if table is None else table[layout.positions].unsqueeze(1)
        self._views = open_views(kv, layout, heads.queries)

    def __call__(self, index: int, qkv: torch.Tensor, qk_norm: torch.Tensor | None) -> torch.Tensor:
        heads, layout = self._heads, self._layout
        qkv = qkv.view(len(qkv), heads.queries + 2 * heads.keys, -1)
        turned = heads.queries + heads.keys
        self._turn(qkv[:, :turned], qk_norm)
        write(self._views.layers[index], layout, qkv[:, heads.queries :])
        return attend(self._views, index, layout, qkv[:, : heads.queries])

    def _turn(self, qk: torch.Tensor, norm: torch.Tensor | None) -> None:
        """Normalise (if there is a norm) and rotate queries and keys [T, Hq + Hkv, D] in place."""
        wide = qk.float() if norm is None else rms_norm(qk, norm, self._heads.eps).float()
        if self._rotation is not None:
            torch.view_as_complex(wide.view(*wide.shape[:2], -1, 2)).mul_(self._rotation)
        if wide is not qk:
            qk.copy_(wide)


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What all layers of a pass share: the buffer for queries, and views of the cache."""

    room: torch.Tensor  # [B, Hkv, M, D], zero beyond the queries
    lines: torch.Tensor  # [B, Q, G * Hkv, D], the same memory
    layers: tuple[torch.Tensor, ...]  # [2, Hkv, slots, D] each
    mask: torch.Tensor | None  # [B, 1, M or 1, N] to add to the scores


def open_views(kv: torch.Tensor, layout: Layout, num_heads: int) -> Views:
    """The views of a cache's tensor for one pass."""
    num_kv_heads, width = kv.shape[2], kv.shape[5]
    room = kv.new_zeros(layout.num_rows, layout.num_lines, num_kv_heads, width)
    lines = room[:, : layout.num_used]
    return Views(
        room=room.transpose(1, 2),
        lines=lines.view(layout.num_rows, layout.num_queries, num_heads, width),
        layers=kv.flatten(3, 4).unbind(0),
        mask=None if layout.seen is None else additive(layout.seen, layout, kv.dtype),
    )


def additive(seen: torch.Tensor, layout: Layout, dtype: torch.dtype) -> torch.Tensor:
    """The additive mask: 0 where a query line sees a key, else -inf: [B, 1, M or 1, N].

    `seen` [B, Q, N] is bool.
    """
    num_rows, num_queries, num_keys = seen.shape
    hidden = seen.logical_not()
    if num_queries == 1:
        mask = seen.new_zeros(num_rows, 1, 1, num_keys, dtype=dtype)
        return mask.masked_fill_(hidden[:, None], -torch.inf)
    mask = seen.new_zeros(num_rows, layout.num_lines, num_keys, dtype=dtype)
    lines = mask[:, : layout.num_used].view(num_rows, num_queries, -1, num_keys)
    lines.masked_fill_(hidden[:, :, None], -torch.inf)
    return mask[:, None]


def write(layer: torch.Tensor, layout: Layout, entries: torch.Tensor) -> None:
    """Write the nodes' keys and values [T, 2 * Hkv, D] to a layer [2, Hkv, slots, D] of a cache."""
    num_nodes, twice, width = entries.shape
    entries = entries.view(num_nodes, 2, twice // 2, width).permute(1, 2, 0, 3)
    layer.index_copy_(2, layout.slots, entries)


def gather(layer: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The keys and values that the rows read, of a layer of a cache: [2, B, Hkv, N, D].

    Blocks in order are a view of the cache, others are copied.
    """
    count = layout.num_rows * num_blocks(layout.num_keys)
    if isinstance(layout.blocks, int):
        found = layer.narrow(2, layout.blocks * BLOCK, count * BLOCK)
    else:
        found = layer.unflatten(2, (-1, BLOCK)).index_select(2, layout.blocks).flatten(2, 3)
    by_row: torch.Tensor = found.unflatten(2, (layout.num_rows, -1)).transpose(1, 2)
    return by_row.narrow(3, 0, layout.num_keys)


def attend(views: Views, index: int, layout: Layout, queries: torch.Tensor) -> torch.Tensor:
    """Attention of the queries [T, G * Hkv, D] over layer `index`: [T, G * Hkv * D]."""
    if layout.spread is not None:
        queries = queries[layout.spread]
    views.lines.copy_(queries.view(views.lines.shape))
    keys, values = gather(views.layers[index], layout)
    read = F.scaled_dot_product_attention(views.room, keys, values, attn_mask=views.mask)
    num_queries = layout.num_rows * layout.num_queries
    packed = read.transpose(1, 2)[:, : layout.num_used].reshape(num_queries, -1)
    return packed if layout.pack is None else packed[layout.pack]

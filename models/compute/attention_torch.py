"""Attention with torch's operations, all query heads of a key head at a time.

Letters as in layout.py, and S slots of a cache row, Hkv key heads, D width of a head. Query heads
are in the order [G, Hkv], so that a node's queries and results need no reordering.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.batch import Batch
from models.compute.heads import Heads
from models.compute.x86.kernels import rms_norm
from models.memory.cache import KVCache
from models.memory.layout import Layout, lay_out
from models.targets.decoder.rotary import Rotary


class TorchAttention:
    """One pass over a cache; see `Attention`."""

    def __init__(self, batch: Batch, cache: KVCache, heads: Heads, rotary: Rotary | None) -> None:
        group = heads.queries // heads.keys
        layout = lay_out(batch, cache, group=group, window=heads.window)
        self._heads, self._layout = heads, layout
        self._rotation = None if rotary is None else rotary(layout.positions)
        self._views = open_views(cache.kv, layout, heads.queries)

    def __call__(self, index: int, qkv: torch.Tensor, qk_norm: torch.Tensor | None) -> torch.Tensor:
        heads, layout = self._heads, self._layout
        qkv = qkv.view(len(qkv), heads.queries + 2 * heads.keys, -1)
        turned = heads.queries + heads.keys
        self._turn(qkv[:, :turned], qk_norm)
        write(self._views, index, layout, qkv[:, heads.queries :])
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
    """What all layers of a pass share: the buffer for queries, and views of the cache.

    `places`: where new entries go, if one view covers them. `past`: the entries that are read, if
    one view covers them.
    """

    room: torch.Tensor  # [B, Hkv, M, D], zero beyond the queries
    lines: torch.Tensor  # [B, Q, G * Hkv, D], the same memory
    layers: Sequence[torch.Tensor]  # [2, rows, Hkv, S, D]
    places: Sequence[torch.Tensor] | None  # [2, B, Hkv, Q, D]
    past: Sequence[torch.Tensor] | None  # [B, Hkv, N, D], keys and values alternating


def open_views(kv: torch.Tensor, layout: Layout, num_heads: int) -> Views:
    """The views of a cache [layers, 2, rows, Hkv, S, D] for one pass."""
    num_kv_heads, width = kv.shape[3], kv.shape[5]
    room = kv.new_zeros(layout.num_rows, layout.num_lines, num_kv_heads, width)
    lines = room[:, : layout.num_used]
    places, past = None, None
    if isinstance(layout.slots, slice):
        places = kv[:, :, layout.rows, :, layout.slots].unbind(0)
    if isinstance(layout.rows, slice):
        past = kv[:, :, layout.rows, :, : layout.num_keys].flatten(0, 1).unbind(0)
    return Views(
        room=room.transpose(1, 2),
        lines=lines.view(layout.num_rows, layout.num_queries, num_heads, width),
        layers=kv.unbind(0),
        places=places,
        past=past,
    )


def write(views: Views, index: int, layout: Layout, entries: torch.Tensor) -> None:
    """Write the nodes' keys and values [T, 2 * Hkv, D] to the cache of layer `index`."""
    num_nodes, twice, width = entries.shape
    if views.places is not None:
        each = entries.view(layout.num_rows, -1, 2, twice // 2, width)
        views.places[index].copy_(each.permute(2, 0, 3, 1, 4))
    else:
        assert not isinstance(layout.slots, slice)
        rows, slots = layout.slots
        views.layers[index][:, rows, :, slots] = entries.view(num_nodes, 2, -1, width)


def attend(views: Views, index: int, layout: Layout, queries: torch.Tensor) -> torch.Tensor:
    """Attention of the queries [T, G * Hkv, D] over layer `index`: [T, G * Hkv * D]."""
    if layout.spread is not None:
        queries = queries[layout.spread]
    views.lines.copy_(queries.view(views.lines.shape))
    if views.past is not None:
        keys, values = views.past[2 * index], views.past[2 * index + 1]
    else:
        keys, values = views.layers[index][:, layout.rows, :, : layout.num_keys]
    read = F.scaled_dot_product_attention(views.room, keys, values, attn_mask=layout.mask)
    num_queries = layout.num_rows * layout.num_queries
    packed = read.transpose(1, 2)[:, : layout.num_used].reshape(num_queries, -1)
    return packed if layout.pack is None else packed[layout.pack]

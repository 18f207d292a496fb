"""Attention of packed nodes over the cache, a group of query heads at a time.

Letters as in layout.py, and Hq query heads, Hkv key heads, D width of a head.
"""

import torch
from torch.nn import functional as F

from models.layout import Layout


def query_room(layout: Layout, num_kv_heads: int, like: torch.Tensor) -> torch.Tensor:
    """The queries' buffer for all layers of a pass, its padding zero: [B, Hkv, M, D]."""
    return like.new_zeros(layout.num_rows, num_kv_heads, layout.num_lines, like.shape[-1])


def write(kv: torch.Tensor, layout: Layout, entries: torch.Tensor) -> None:
    """Put the nodes' keys and values [T, 2 * Hkv, D] into one layer's kv [2, rows, Hkv, S, D]."""
    entries = entries.view(len(entries), 2, -1, entries.shape[2])
    if isinstance(layout.slots, slice):
        place = kv[:, layout.rows, :, layout.slots]
        place.copy_(entries.view(layout.num_rows, -1, *entries.shape[1:]).permute(2, 0, 3, 1, 4))
    else:
        rows, slots = layout.slots
        kv[:, rows, :, slots] = entries


def attend(
    queries: torch.Tensor, kv: torch.Tensor, layout: Layout, room: torch.Tensor
) -> torch.Tensor:
    """What the queries [T, Hq, D] read from one layer's kv: [T, Hq * D]."""
    if layout.spread is not None:
        queries = queries[layout.spread]
    shape = (layout.num_rows, layout.num_queries, kv.shape[2], -1, kv.shape[4])
    folded = queries.view(shape).transpose(1, 2)  # [B, Hkv, Q, G, D]
    used = layout.num_queries * folded.shape[3]
    room[:, :, :used].view(folded.shape).copy_(folded)
    keys, values = kv[:, layout.rows, :, : layout.num_keys]
    read = F.scaled_dot_product_attention(room, keys, values, attn_mask=layout.mask)
    unfolded = read[:, :, :used].reshape(folded.shape).transpose(1, 2)
    packed = unfolded.reshape(layout.num_rows * layout.num_queries, -1)
    return packed if layout.pack is None else packed[layout.pack]

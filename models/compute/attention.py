"""Attention of packed nodes over the cache, with our compiled kernel or with torch.

Letters: T packed nodes, Hq query heads, Hkv key heads, D head width. Query heads are in the order
[Hq / Hkv, Hkv].
"""

from typing import Protocol

import torch

from models.batch import Batch
from models.compute.attention_torch import torch_attention
from models.compute.heads import Heads
from models.compute.x86.attention_compiled import CompiledAttention
from models.compute.x86.kernels import compiled
from models.memory.cache import KVCache
from models.targets.decoder.rotary import Rotary


class Attention(Protocol):
    """One pass of a batch over a cache, layer by layer."""

    def __call__(self, index: int, qkv: torch.Tensor, qk_norm: torch.Tensor | None) -> torch.Tensor:
        """Write the nodes' keys and values to the cache and attend to all that each node sees.

        Args:
            index: index of the layer.
            qkv: [T, (Hq + 2 Hkv) D], contiguous; may be overwritten.
            qk_norm: [Hq + Hkv, D] float32 with the factor √D, for queries and keys; or None.

        Returns:
            [T, Hq D].
        """


def open_attention(batch: Batch, cache: KVCache, heads: Heads, rotary: Rotary | None) -> Attention:
    """The attention of one pass; `rotary` rotates queries and keys by the nodes' positions.

    With the compiled kernel, a node's result does not depend on the rest of the batch.
    """
    if cache.kv.is_cpu and compiled():
        return CompiledAttention(batch, cache, heads, rotary)
    return torch_attention(batch, cache, heads, rotary)

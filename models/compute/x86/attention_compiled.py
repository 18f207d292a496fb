"""Attention with our compiled kernel (models/compute/x86/csrc/attention.c)."""

import numpy as np
import torch

from models.batch import Batch, Bools
from models.compute.heads import Heads
from models.compute.x86.forward import MOST_QUERIES, Nodes, attend
from models.memory.cache import KVCache
from models.memory.layout import note_depths, seen_by_rows
from models.targets.decoder.rotary import Rotary


class CompiledAttention:
    """One pass over a cache; see `Attention`."""

    def __init__(self, batch: Batch, cache: KVCache, heads: Heads, rotary: Rotary | None) -> None:
        self._nodes = nodes_of(batch, cache, heads, rotary)

    def __call__(self, index: int, qkv: torch.Tensor, qk_norm: torch.Tensor | None) -> torch.Tensor:
        return attend(self._nodes, index, qkv, qk_norm)


def nodes_of(batch: Batch, cache: KVCache, heads: Heads, rotary: Rotary | None) -> Nodes:
    """The batch in the form that the kernels take."""
    assert heads.queries <= heads.keys * MOST_QUERIES
    cache.hold(batch)
    visible: tuple[Bools | None, ...] = batch.visible
    if heads.window is not None:
        note_depths(batch, cache)
        visible = tuple(seen_by_rows(batch, cache, heads.window))
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

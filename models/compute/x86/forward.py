"""Attention and whole forward passes of a batch over a cache. Letters as in kernels.py."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.batch import Batch, Bools, Ints
from models.compute.heads import Heads
from models.compute.x86.kernels import KINDS, library
from models.memory.cache import KVCache
from models.readout import States

MOST_QUERIES = 192  # query heads of one key head that the attention kernel supports


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """A batch over a cache, with its masks and rotations.

    `visible` are contiguous masks. With `shared` they cover the keys after the committed ones, as
    in `Batch`; otherwise they cover all keys. `table` [positions, D / 2] complex64: the rotations.
    """

    batch: Batch
    cache: KVCache
    heads: Heads
    table: torch.Tensor | None
    visible: tuple[Bools | None, ...]
    shared: bool

    def arguments(self) -> tuple[Any, ...]:
        """The first arguments of all kernels that work on batches."""
        batch, cache, heads, kv = self.batch, self.cache, self.heads, self.cache.kv
        return (
            np.ascontiguousarray(batch.rows),
            np.ascontiguousarray(batch.counts),
            np.ascontiguousarray(batch.depths),
            cache.lengths,
            cache.rooms,
            cache.tables,
            batch.scratch,
            self.visible,
            self.shared,
            KINDS[kv.dtype],
            heads.queries,
            heads.keys,
            heads.width,
            kv.stride(2),
            kv.stride(1),
            torch.get_num_threads(),
        )

    def of_model(self, width: int, eps: float) -> tuple[Any, ...]:
        """The next arguments of kernels that run all layers, for a model of this width."""
        kv, floor = self.cache.kv, self.heads.eps * self.heads.width
        return floor, eps * width, self.rotations(), kv.data_ptr(), kv.stride(0)

    def rotations(self) -> int:
        """The address of the table, or 0."""
        return 0 if self.table is None else self.table.data_ptr()


def attend(nodes: Nodes, index: int, qkv: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
    """Attention of T nodes over layer `index` of a cache; writes their keys and values to it.

    Args:
        nodes: the batch.
        index: index of the layer.
        qkv: [T, (Hq + 2 Hkv) D], query heads in the order [Hq / Hkv, Hkv].
        norm: [Hq + Hkv, D] float32 with the factor √D, for queries and keys.

    Returns:
        [T, Hq D].
    """
    heads, kv = nodes.heads, nodes.cache.kv[index]
    assert qkv.dtype == kv.dtype
    assert qkv.is_contiguous()
    result = qkv.new_empty(len(qkv), heads.queries * heads.width)
    library().attend(
        *nodes.arguments(),
        qkv.data_ptr(),
        0 if norm is None else norm.data_ptr(),
        nodes.rotations(),
        kv.data_ptr(),
        result.data_ptr(),
        heads.eps * heads.width,
    )
    return result


def score(
    nodes: Nodes,
    model: Ints,
    width: int,
    eps: float,
    x: torch.Tensor | None,
    logits: torch.Tensor,
    states: States | None = None,
) -> None:
    """A whole forward pass of T nodes.

    Args:
        nodes: the batch.
        model: the weights, as in models/compute/x86/csrc/kernels.h.
        width: width of the model.
        eps: eps of its norms.
        x: [T, width], the first layer's input; overwritten with the last layer's output. None: the
            input is the embedding of the batch's tokens.
        logits: [W, V] float32, filled for the wanted nodes; empty: no logits are computed.
        states: the hidden states to fill; None: none are kept.

    Raises:
        IndexError: a token is outside the embedding table.
    """
    kv, batch = nodes.cache.kv, nodes.batch
    assert x is None or (x.dtype == kv.dtype and x.is_contiguous())
    assert states is None or states.values.dtype == kv.dtype
    library().score(
        *nodes.arguments(),
        *nodes.of_model(width, eps),
        0 if x is None else x.data_ptr(),
        logits.data_ptr() if logits.numel() else 0,
        0 if states is None else states.values.data_ptr(),
        model,
        np.ascontiguousarray(batch.tokens) if x is None else None,
        batch.wanted,
        None if states is None else np.array(states.layers, dtype=np.int64),
    )

"""A decoder whose whole forward pass is one call of the compiled kernels."""

import numpy as np
import torch

from models.batch import Batch
from models.compute.heads import Heads
from models.compute.linear import Compiled, Linear
from models.compute.x86.attention_compiled import nodes_of
from models.compute.x86.drafts import Chooser
from models.compute.x86.forward import score
from models.compute.x86.kernels import Draw, Knobs, compiled
from models.memory.cache import KVCache
from models.readout import States
from models.targets.decoder.rotary import Rotary
from models.targets.decoder.weights import Layer, Weights


class Stack:
    """A decoder's weights, ready for the compiled kernels. Letters as in decoder.py."""

    def __init__(self, weights: Weights, heads: Heads, eps: float) -> None:
        self._weights, self._heads, self._eps = weights, heads, eps
        self._width = len(weights.norm)
        self._model = _model(weights)

    def score(
        self,
        batch: Batch,
        cache: KVCache,
        rotary: Rotary,
        x: torch.Tensor | None,
        logits: torch.Tensor,
        states: States | None = None,
    ) -> None:
        """Fill `logits` [W, V] float32 (empty: no logits are computed) and `states`, if any.

        `x` [T, width]: the first layer's input; overwritten with the last layer's output. None: the
        input is the embedding of the batch's tokens.
        """
        nodes = nodes_of(batch, cache, self._heads, rotary)
        score(nodes, self._model, self._width, self._eps, x, logits, states)

    def chooser(
        self, batch: Batch, cache: KVCache, rotary: Rotary, draw: Draw, knobs: Knobs
    ) -> Chooser:
        """Drafts with this model after a batch of chains."""
        return Chooser(
            nodes=nodes_of(batch, cache, self._heads, rotary),
            model=self._model,
            width=self._width,
            eps=self._eps,
            draw=draw,
            knobs=knobs,
        )


def stack_of(weights: Weights, heads: Heads, eps: float, device: torch.device) -> Stack | None:
    """The stack of a decoder on CPU; None without compiled kernels."""
    return Stack(weights, heads, eps) if device.type == "cpu" and compiled() else None


def _model(weights: Weights) -> np.ndarray:
    """`Model` of models/compute/x86/csrc/kernels.h as int64 values."""
    inputs, width = weights.embedding.shape
    assert weights.embedding.is_contiguous()
    values = [width, inputs, weights.embedding.data_ptr(), weights.norm.data_ptr()]
    values += [*_matrix(weights.head), len(weights.layers)]
    for layer in weights.layers:
        values += _layer(layer)
    return np.array(values, dtype=np.int64)


def _layer(layer: Layer) -> list[int]:
    norms = (layer.attention_norm, layer.qk_norm, layer.mlp_norm)
    values = [0 if norm is None else norm.data_ptr() for norm in norms]
    for linear in (layer.qkv, layer.out, layer.gate_up, layer.down):
        values += _matrix(linear)
    return values


def _matrix(linear: Linear) -> tuple[int, int, int, int]:
    assert isinstance(linear, Compiled)
    return linear.matrix.row()

"""A decoder's layers and head with torch's operations. Letters as in decoder.py."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from models.compute.attention import Attention
from models.compute.heads import Heads
from models.compute.x86.kernels import rms_norm
from models.readout import States
from models.targets.decoder.weights import Weights

Activation = Callable[[torch.Tensor], torch.Tensor]  # elementwise; returns a new tensor


class TorchPass:
    """From the first layer's input to hidden states and logits.

    It waits for no value of a tensor, so that a whole pass can be compiled or captured as a graph.
    """

    def __init__(
        self, weights: Weights, heads: Heads, eps: float, *, silu: Activation = F.silu
    ) -> None:
        """`eps`: of the norms of the model's width."""
        self.weights, self.heads, self._eps, self._silu = weights, heads, eps, silu

    def run(self, x: torch.Tensor, attention: Attention, states: States | None) -> None:
        """Run all layers on x [T, width], in place, and fill `states`, if any."""
        weights, eps = self.weights, self._eps
        for index, layer in enumerate(weights.layers):
            if states is not None:
                states.take(index, x)
            qkv = layer.qkv(rms_norm(x, layer.attention_norm, eps))
            layer.out.add(attention(index, qkv, layer.qk_norm), x)
            gate_up = layer.gate_up(rms_norm(x, layer.mlp_norm, eps))
            gate, up = gate_up.chunk(2, dim=-1)
            layer.down.add(self._silu(gate).mul_(up), x)
        if states is not None and len(weights.layers) in states.layers:
            states.take(len(weights.layers), rms_norm(x, weights.norm, eps))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[W, V] float32, of the last layer's output x [W, width]."""
        return self.weights.head(rms_norm(x, self.weights.norm, self._eps)).float()

"""An EAGLE-3 drafter for training, unrolled as it drafts: the training-time test.

Step k reads, at index i, token i + 1 + k and its own state of step k - 1 (the target's states at
step 0), at position i + k. It sees the entries of step 0 up to i, the verified ones, and of the
steps since then only those of its own index. It predicts token i + 2 + k.
Source: EAGLE-3, Li et al. 2025, arXiv 2503.01840, section 3.
Letters: B texts, N positions, M = N - 1 indices, n taps of width C, D width, H heads, d head width.
"""

from collections.abc import Collection, Mapping

import torch
from torch.nn import functional as F

from models.drafting.distil.networks.named import Named
from models.drafting.heads.eagle_head import (
    EMBEDDING,
    FUSE,
    FUSED_NORM,
    HEAD,
    HIDDEN_NORM,
    LAYER,
    NORM,
    EagleConfig,
    EagleHead,
    shapes,
    tap_norm,
)
from models.targets.decoder.rotary import frequencies


class EagleNetwork(Named):
    """The drafter's tensors and its unrolled steps."""

    def __init__(
        self,
        config: EagleConfig,
        tensors: Mapping[str, torch.Tensor],
        depth: int,
        *,
        ids: torch.Tensor | None = None,
        frozen: Collection[str] = (),
    ) -> None:
        """`depth`: steps to unroll. `ids` [K]: the tokens that it can draft; None: all.

        `frozen`: names of tensors that are not trained.
        """
        super().__init__()
        self.config, self.depth, self.taps, self.ids = config, depth, config.taps, ids
        for name in shapes(config):
            self.put(name, tensors[name], frozen=name in frozen)
        self._turns = frequencies(config.layer.rotary, config.layer.head_dim)

    def forward(self, tokens: torch.Tensor, states: torch.Tensor) -> list[torch.Tensor]:
        """Logits [B, M, K] of each step, index i at row i.

        Args:
            tokens: [B, N].
            states: [B, N, n + 1, C] of the target: the taps and the last layer.
        """
        count = tokens.shape[1] - 1
        hidden = self._fuse(states[:, :count, :-1])  # [B, M, D]
        found: list[torch.Tensor] = []
        entries: list[tuple[torch.Tensor, torch.Tensor]] = []  # keys and values of the steps
        for step in range(self.depth):
            inputs = F.pad(tokens[:, 1 + step :], (0, step))  # beyond the text: not predicted
            hidden, out = self._step(inputs, hidden, step, entries)
            found.append(F.linear(out, self.tensor(HEAD)))
            if self.config.norm_output:
                hidden = out
        return found

    def _fuse(self, taps: torch.Tensor) -> torch.Tensor:
        if self.config.norm_taps:
            normed = [self._norm(tap, tap_norm(index)) for index, tap in enumerate(taps.unbind(2))]
            taps = torch.stack(normed, dim=2)
        x = taps.flatten(2)
        if self.config.norm_before_fc:
            x = self._norm(x, FUSED_NORM)
        return F.linear(x, self.tensor(FUSE))

    def _step(
        self,
        inputs: torch.Tensor,
        hidden: torch.Tensor,
        step: int,
        entries: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state [B, M, D] and the same after the final norm."""
        embedded = F.embedding(inputs, self.tensor(EMBEDDING))
        normed = self._norm(hidden, HIDDEN_NORM)
        x = normed if self.config.norm_before_residual else hidden
        read = torch.cat([self._norm(embedded, LAYER + "input_layernorm.weight"), normed], dim=-1)
        q, k, v = (self._heads(read, f"self_attn.{name}_proj") for name in "qkv")
        places = torch.arange(inputs.shape[1], device=inputs.device) + step
        group = self.config.layer.num_heads // self.config.layer.num_kv_heads
        k, v = (y.repeat_interleave(group, dim=1) for y in (self._turn(k, places), v))
        entries.append((k, v))
        x = x + self._linear(_attend(self._turn(q, places), entries), "self_attn.o_proj")
        inner = self._norm(x, LAYER + "post_attention_layernorm.weight")
        gate, up = self._linear(inner, "mlp.gate_proj"), self._linear(inner, "mlp.up_proj")
        x = x + self._linear(F.silu(gate) * up, "mlp.down_proj")
        return x, self._norm(x, NORM)

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.tensor(name), self.config.layer.norm_eps)

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.tensor(f"{LAYER}{name}.weight"))

    def _heads(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """[B, H, M, d]."""
        found: torch.Tensor = self._linear(x, name)
        return found.view(*x.shape[:2], -1, self.config.layer.head_dim).transpose(1, 2)

    def _turn(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Rotate x [B, H, M, d] by positions [M]: halves, as in Hugging Face's Llama."""
        angles = places[:, None] * self._turns.to(places.device)  # [M, d / 2]
        cos, sin = angles.cos(), angles.sin()
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def stored(self, dtype: torch.dtype) -> EagleHead:
        """What is stored of it."""
        tensors = {name: self.tensor(name).detach().to(dtype) for name in shapes(self.config)}
        return EagleHead(config=self.config, tensors=tensors, ids=self.ids)


def _attend(q: torch.Tensor, entries: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """[B, M, H d]: over step 0 up to the own index, and over the own index of later steps."""
    (first_k, first_v), later = entries[0], entries[1:]
    count, scale = q.shape[2], q.shape[3] ** -0.5
    hidden = torch.ones(count, count, dtype=torch.bool, device=q.device).triu(1)
    scores = [(q @ first_k.transpose(2, 3) * scale).masked_fill(hidden, -torch.inf)]
    scores += [(q * k).sum(-1, keepdim=True) * scale for k, _ in later]
    shares = torch.cat(scores, dim=-1).softmax(-1)
    read = shares[..., :count] @ first_v
    for place, (_, v) in enumerate(later, count):
        read = read + shares[..., place : place + 1] * v
    return read.transpose(1, 2).flatten(2)

"""Runs an EAGLE-3 drafter: from tokens and states to logits and states; fills its KV cache.

Letters: P positions, T packed nodes, W wanted nodes, V vocabulary, n taps of width C, D width.
"""

from functools import partial

import torch
from torch.nn import functional as F

from models.batch import Batch
from models.compute.attention import open_attention
from models.compute.linear import Scratch, make_linear
from models.compute.x86.kernels import rms_norm
from models.drafting.heads.eagle_head import (
    EMBEDDING,
    FUSE,
    FUSED_NORM,
    HEAD,
    HIDDEN_NORM,
    LAYER,
    NORM,
    EagleHead,
    tap_norm,
)
from models.memory.cache import KVCache, bytes_per_entry
from models.readout import Readout
from models.targets.decoder.decoder import heads_of
from models.targets.decoder.rotary import Rotary
from models.targets.decoder.weights import norm_weight, read_layer


class EagleModel:
    """A drafter's layer with its embedding and output matrix. Not thread-safe."""

    def __init__(self, head: EagleHead, *, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.dtype, self.device = head.config, dtype, device
        layer = head.config.layer
        self.vocab_size, self.context_length = layer.vocab_size, layer.context_length
        self.num_parameters = sum(tensor.numel() for tensor in head.tensors.values())
        self.wants = Readout(layers=head.config.taps)
        self._ids = None if head.ids is None else head.ids.to(device)
        self._heads, self._rotary = heads_of(layer), Rotary(layer.rotary, layer.head_dim, device)
        make = partial(make_linear, scratch=Scratch())

        def get(name: str) -> torch.Tensor:
            return head.tensors[name].to(device=device, dtype=dtype)

        self._embedding = get(EMBEDDING)
        self._layer = read_layer(layer, lambda name: get(LAYER + name), make)
        self._hidden_norm, self._norm = norm_weight(get(HIDDEN_NORM)), norm_weight(get(NORM))
        self._fuse, self._head = make(get(FUSE), None), make(get(HEAD), None)
        names = [tap_norm(index) for index in range(len(head.config.taps))]
        names = names if head.config.norm_taps else []
        self._tap_norms = [norm_weight(get(name)) for name in names]
        whole = head.config.norm_before_fc
        self._fused_norm = norm_weight(get(FUSED_NORM)) if whole else None

    @property
    def bytes_per_entry(self) -> int:
        """Bytes of one entry of the cache."""
        return bytes_per_entry(self.config.layer, self.dtype)

    def new_cache(self, rows: int, capacity: int, entries: int | None = None) -> KVCache:
        """An empty cache. Entry i of a row is of the target's position i."""
        self._rotary.reserve(capacity)
        sizes = {"dtype": self.dtype, "device": self.device, "entries": entries}
        return KVCache(self.config.layer, rows, capacity, **sizes)  # type: ignore[arg-type]

    @torch.inference_mode()
    def fuse(self, states: torch.Tensor) -> torch.Tensor:
        """[P, D] from the target's states [P, n, C]."""
        eps = self.config.layer.norm_eps
        x = states.to(device=self.device, dtype=self.dtype)
        if self._tap_norms:
            taps = zip(x.unbind(1), self._tap_norms, strict=True)
            x = torch.stack([rms_norm(tap.contiguous(), norm, eps) for tap, norm in taps], dim=1)
        x = x.flatten(1).contiguous()
        return self._fuse(x if self._fused_norm is None else rms_norm(x, self._fused_norm, eps))

    @torch.inference_mode()
    def score(
        self, cache: KVCache, batch: Batch, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the batch's nodes, and leave their entries as scratch in the cache.

        Args:
            hidden: [T, D] what each node reads beside its token: of `fuse`, or a state.
        Returns:
            [W, V] float32 logits, -inf for tokens that it cannot draft, and [T, D] the states, for
            the nodes that continue these.
        """
        layer, eps = self._layer, self.config.layer.norm_eps
        tokens = torch.from_numpy(batch.tokens).to(self.device)
        embedded = rms_norm(F.embedding(tokens, self._embedding), layer.attention_norm, eps)
        normed = rms_norm(hidden.contiguous(), self._hidden_norm, eps)
        x = (normed if self.config.norm_before_residual else hidden).clone()
        attention = open_attention(batch, cache, self._heads, self._rotary)
        qkv = layer.qkv(torch.cat([embedded, normed], dim=-1))
        layer.out.add(attention(0, qkv, layer.qk_norm), x)
        gate, up = layer.gate_up(rms_norm(x, layer.mlp_norm, eps)).chunk(2, dim=-1)
        layer.down.add(F.silu(gate).mul_(up), x)
        out = rms_norm(x, self._norm, eps)
        return self._logits(out, batch), out if self.config.norm_output else x

    def _logits(self, out: torch.Tensor, batch: Batch) -> torch.Tensor:
        if batch.wanted is not None:
            out = out[torch.from_numpy(batch.wanted).to(self.device)]
        logits = self._head(out).float()
        if self._ids is None:
            return logits
        whole = logits.new_full((len(logits), self.vocab_size), -torch.inf)
        return whole.index_copy_(1, self._ids, logits)

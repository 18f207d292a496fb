"""Medusa heads, ready to run: all of them in one pass, since none reads what was drafted before.

Letters: B sequences, K heads, W nodes a level, V vocabulary, D width of the target.
"""

from functools import partial

import torch
from torch.nn import functional as F

from models.batch import Ints
from models.compute.linear import Scratch, make_linear
from models.drafting.heads.medusa_head import SHARED, MedusaHead, block, output
from models.drafting.tree import Tree

UNBOUNDED = 1 << 40  # positions: heads do not know theirs


class MedusaModel:
    """Implements models.drafting.heads.heads_drafter.HeadsModel."""

    def __init__(self, head: MedusaHead, *, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.dtype, self.device = head.config, dtype, device
        self.vocab_size, self.num_heads = head.config.vocab_size, head.config.num_heads
        self.context_length = UNBOUNDED
        make = partial(make_linear, scratch=Scratch())
        tensors = {name: t.to(device=device, dtype=dtype) for name, t in head.tensors.items()}
        config = head.config
        self.num_parameters = sum(tensor.numel() for tensor in tensors.values())
        self._ids = None if head.ids is None else head.ids.to(device)
        self._blocks = [
            [
                make(tensors[block(k, layer)], tensors.get(block(k, layer, "bias")))
                for layer in range(config.num_layers)
            ]
            for k in range(config.num_heads)
        ]
        names = [SHARED] if config.shared else [output(k) for k in range(config.num_heads)]
        self._outputs = [make(tensors[name], None) for name in names]

    @torch.inference_mode()
    def __call__(self, states: torch.Tensor, depth: int) -> torch.Tensor:
        """[B, depth, V] float32 logits of the first heads, from states [B, D]."""
        states = states.to(device=self.device, dtype=self.dtype)
        found = []
        logits: torch.Tensor
        for layers in self._blocks[:depth]:
            x = states
            for layer in layers:
                x = x + F.silu(layer(x))
            found.append(x)
        if len(self._outputs) == 1:
            logits = self._outputs[0](torch.cat(found)).unflatten(0, (depth, -1)).transpose(0, 1)
        else:
            pairs = zip(self._outputs, found, strict=False)
            logits = torch.stack([head(x) for head, x in pairs], dim=1)
        logits = logits.float()
        if self._ids is None:
            return logits
        whole = logits.new_full((*logits.shape[:2], self.config.vocab_size), -torch.inf)
        return whole.index_copy_(2, self._ids, logits)

    def start(self, states: torch.Tensor, roots: Ints, depth: int) -> "MedusaSteps":
        """Begin drafts of `depth` levels; the roots are not read."""
        return MedusaSteps(self(states, depth))


class MedusaSteps:
    """Implements models.drafting.heads.heads_drafter.Steps: hands out what was computed before."""

    def __init__(self, logits: torch.Tensor) -> None:
        """[B, K, V]."""
        self._logits, self.logits = logits, logits[:, 0]

    def feed_chain(self, tokens: Ints, level: int) -> torch.Tensor:
        """Logits [B, V] of the level after `level`."""
        return self._logits[:, level + 1]

    def feed_tree(self, tree: Tree) -> torch.Tensor:
        """Logits [B * W, V] of the level after the tree's last one."""
        return self._logits[:, tree.size // tree.width].repeat_interleave(tree.width, dim=0)

"""Hydra heads, ready to run: one pass for each level, which reads the tokens drafted before it.

Letters: B sequences, W nodes a level, R rows (B, or B * W), V vocabulary, D and E as in
hydra_head.py.
"""

from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from models.batch import Ints
from models.compute.linear import Scratch, make_linear
from models.drafting.heads.hydra_head import EMBEDDING, HydraHead, mix
from models.drafting.heads.medusa_model import UNBOUNDED
from models.drafting.tree import Tree


class HydraModel:
    """Implements models.drafting.heads.heads_drafter.HeadsModel."""

    def __init__(self, head: HydraHead, *, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.dtype, self.device = head.config, dtype, device
        self.vocab_size, self.num_heads = head.config.vocab_size, head.config.num_heads
        self.context_length = UNBOUNDED
        make = partial(make_linear, scratch=Scratch())
        tensors = {name: t.to(device=device, dtype=dtype) for name, t in head.tensors.items()}
        self.num_parameters = sum(tensor.numel() for tensor in tensors.values())
        self._embedding = tensors[EMBEDDING]
        self._mixes = [
            make(tensors[mix(k)], tensors[mix(k, "bias")]) for k in range(self.num_heads)
        ]
        self._ids = None if head.ids is None else head.ids.to(device)
        self._output = make(head.output.to(device=device, dtype=dtype), None)

    @torch.inference_mode()
    def __call__(self, states: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """[R, V] float32 logits of head k, from states [R, D] and embeddings [R, (k + 1) * E]."""
        level = embedded.shape[1] // self.config.embedded - 1
        x = states + F.silu(self._mixes[level](torch.cat([states, embedded], dim=1)))
        logits: torch.Tensor = self._output(x).float()
        if self._ids is None:
            return logits
        whole = logits.new_full((len(logits), self.vocab_size), -torch.inf)
        return whole.index_copy_(1, self._ids, logits)

    def embed(self, tokens: Ints) -> torch.Tensor:
        """[R, E]."""
        return self._embedding[torch.from_numpy(tokens).to(self.device)]

    def start(self, states: torch.Tensor, roots: Ints, depth: int) -> "HydraSteps":
        """Begin drafts; see `HeadsModel`."""
        return HydraSteps(self, states.to(device=self.device, dtype=self.dtype), roots)


class HydraSteps:
    """Implements models.drafting.heads.heads_drafter.Steps."""

    def __init__(self, model: HydraModel, states: torch.Tensor, roots: Ints) -> None:
        self._model, self._states = model, states  # [R, D]
        self._embedded = model.embed(roots)  # [R, levels * E]: the root, and a path since then
        self.logits = model(states, self._embedded)

    def feed_chain(self, tokens: Ints, level: int) -> torch.Tensor:
        """Logits [B, V] after one more token [B] of each chain."""
        return self._feed(tokens)

    def feed_tree(self, tree: Tree) -> torch.Tensor:
        """Logits [B * W, V] after the tree's last level."""
        width, size, batch = tree.width, tree.size, len(tree.tokens)
        old = size - width
        if old:  # a row for each node of the level before
            first = width * np.arange(batch)[:, None]
            rows = torch.from_numpy((first + tree.parents[:, old:size] - (old - width)).reshape(-1))
            self._embedded = self._embedded[rows]
        else:  # a row for each root
            self._states = self._states.repeat_interleave(width, dim=0)
            self._embedded = self._embedded.repeat_interleave(width, dim=0)
        return self._feed(tree.tokens[:, old:size].reshape(-1))

    def _feed(self, tokens: Ints) -> torch.Tensor:
        self._embedded = torch.cat([self._embedded, self._model.embed(tokens)], dim=1)
        return self._model(self._states, self._embedded)

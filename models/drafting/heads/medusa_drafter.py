"""Drafts chains and trees with Medusa heads, from the target's last state of each request.

The heads do not read what was drafted before, so all of them are computed in one pass.
Letters: B sequences, K heads, W nodes a level, V vocabulary, D width of the target.
"""

from collections.abc import Sequence as Several
from functools import partial

import torch
from torch.nn import functional as F

from models.batch import Ints
from models.compute.linear import Scratch, make_linear
from models.drafting.draft import Draft, Shape, chain_draft
from models.drafting.drafter import DraftContext, clip, propose_some, useful_depth
from models.drafting.growth import grow_chain, grow_tree, num_generated
from models.drafting.heads.medusa_head import SHARED, MedusaHead, block, output
from models.drafting.reading import Reading
from models.drafting.tree import Tree
from models.engine_config import MAX_WIDTH
from models.readout import Readout
from models.requests.sequence import Sequence
from models.verify.round import Commit, Round

UNBOUNDED = 1 << 40  # positions: heads do not know theirs


class MedusaModel:
    """All heads, ready to run on one device."""

    def __init__(self, head: MedusaHead, *, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.dtype, self.device = head.config, dtype, device
        self.vocab_size, self.context_length = head.config.vocab_size, UNBOUNDED
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


class MedusaDrafter:
    """Medusa heads and the states that they read; a `ReadingDrafter`."""

    max_width = MAX_WIDTH
    remote = False
    transfer_s = 0.0
    bytes_per_entry = 0
    wants = Readout(layers=(-1,))

    def __init__(self, model: MedusaModel, *, name: str = "medusa") -> None:
        self.name, self.model = name, model
        self.passes = 0
        self._states: dict[str, tuple[int, torch.Tensor]] = {}  # the last position's, [D]

    def read(self, readings: Several[Reading]) -> None:
        """Keep the state of each request's last position."""
        for reading in readings:
            assert reading.states is not None
            last = reading.first + len(reading.states) - 1
            self._states[reading.sequence.id] = last, reading.states[-1, 0].clone()

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """Does nothing: `read` was told the states."""

    def forget(self, request_id: str) -> None:
        """Drop the request's state."""
        self._states.pop(request_id, None)

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """Chains (width 1) or trees, with the context's noise, as deep as there are heads."""
        depth = max((useful_depth(s, shape) for s in sequences), default=0)
        depth = min(depth, self.model.config.num_heads)
        held = [b for b, s in enumerate(sequences) if depth and self._is_ready(s)]
        return propose_some(
            sequences, held, context, lambda some, their: self._propose(some, depth, shape, their)
        )

    def _is_ready(self, sequence: Sequence) -> bool:
        """Whether the state before the last token is here."""
        position, _ = self._states.get(sequence.id, (-1, None))
        return position == len(sequence.tokens) - 2 >= 0

    def _propose(
        self, sequences: list[Sequence], depth: int, shape: Shape, context: DraftContext
    ) -> list[Draft]:
        states = torch.stack([self._states[s.id][1] for s in sequences])
        logits = self.model(states, depth)  # [B, depth, V]
        self.passes += 1
        generated = num_generated(sequences)
        if shape.width == 1:

            def feed(_: Ints, level: int) -> torch.Tensor:
                return logits[:, level + 1]

            tokens, probs = grow_chain(logits[:, 0], depth, generated, context, feed)
            counts = [min(useful_depth(s, shape), depth) for s in sequences]
            return [
                chain_draft(tokens[b, :count], None if probs is None else probs[b, :count])
                for b, count in enumerate(counts)
            ]

        def feed_tree(tree: Tree) -> torch.Tensor:
            return logits[:, tree.size // tree.width].repeat_interleave(tree.width, dim=0)

        tree = grow_tree(logits[:, 0], shape.width, depth, generated, context, feed_tree)
        kept = tree.best(shape.budget)
        return [
            clip(Draft(tokens=tokens, parents=parents), useful_depth(sequence, shape), levels)
            for sequence, _, _, tokens, parents, levels in zip(sequences, *kept, strict=True)
        ]

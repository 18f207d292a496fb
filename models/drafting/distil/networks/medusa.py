"""Medusa heads for training: all heads at every position of a text.

Letters: B texts, N positions, n layers that are read, C width of the target, V vocabulary, K tokens
that can be drafted.
"""

import torch
from torch.nn import functional as F

from models.drafting.distil.networks.named import Named, rows_of
from models.drafting.heads.medusa_head import SHARED, MedusaConfig, MedusaHead, block, shapes


class MedusaNetwork(Named):
    """Heads on the target's last state. They start as the identity under the target's own head."""

    taps: tuple[int, ...] = ()

    def __init__(
        self, config: MedusaConfig, head: torch.Tensor, ids: torch.Tensor | None = None
    ) -> None:
        """`head` [K, C]: the target's output matrix, or its rows `ids` [K]; it is not trained."""
        super().__init__()
        self.config, self.ids = config, ids
        for name, shape in shapes(config).items():
            if name != SHARED:
                self.put(name, torch.zeros(shape))
        self.put(SHARED, head, frozen=True)

    def forward(self, tokens: torch.Tensor, states: torch.Tensor) -> list[torch.Tensor]:
        """Logits [B, N, K] of each head: of head k, for the token k + 2 positions on.

        Args:
            tokens: [B, N], not read.
            states: [B, N, n + 1, C] of the target; the last layer is read.
        """
        found, last = [], states[:, :, -1]
        for k in range(self.config.num_heads):
            x = last
            for layer in range(self.config.num_layers):
                bias = self.tensor(block(k, layer, "bias")) if self.config.biased else None
                x = x + F.silu(F.linear(x, self.tensor(block(k, layer)), bias))
            found.append(F.linear(x, self.tensor(SHARED)))
        return found

    def stored(self, dtype: torch.dtype) -> MedusaHead:
        """What is stored of it, the shared output matrix included."""
        tensors = {**self.trained(), SHARED: self.tensor(SHARED)}
        return MedusaHead(
            config=self.config,
            tensors={name: t.to(dtype) for name, t in tensors.items()},
            ids=self.ids,
        )


def new_medusa(
    head: torch.Tensor, *, num_heads: int, ids: torch.Tensor | None = None
) -> MedusaNetwork:
    """Heads for the target with this output matrix [V, C]; `ids`: the tokens they can draft."""
    vocab_size, width = head.shape
    config = MedusaConfig(vocab_size=vocab_size, width=width, num_heads=num_heads)
    return MedusaNetwork(config, rows_of(head, ids), ids)


def continue_medusa(stored: MedusaHead, head: torch.Tensor) -> MedusaNetwork:
    """Heads that go on from stored ones; all of them under the target's output matrix."""
    network = MedusaNetwork(stored.config, rows_of(head, stored.ids), stored.ids)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(stored.tensors[name])
    return network

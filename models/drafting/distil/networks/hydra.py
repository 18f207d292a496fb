"""Hydra heads for training: all heads at every position of a text, with the text's own tokens.

Letters: B texts, N positions, M = N - 1 indices, n layers that are read, C width of the target,
E width of the embedding, V vocabulary, K tokens that can be drafted.
"""

import torch
from torch.nn import functional as F

from models.drafting.distil.networks.named import Named, rows_of
from models.drafting.heads.hydra_head import EMBEDDING, HydraConfig, HydraHead, mix, shapes

OUTPUT = "output.weight"


class HydraNetwork(Named):
    """Heads on the target's last state and the tokens since then, under its own output matrix."""

    taps: tuple[int, ...] = ()

    def __init__(
        self,
        config: HydraConfig,
        tensors: dict[str, torch.Tensor],
        output: torch.Tensor,
        ids: torch.Tensor | None = None,
    ) -> None:
        """`output` [K, C]: the target's output matrix, or its rows `ids` [K]; it is not trained."""
        super().__init__()
        self.config, self.ids = config, ids
        for name in shapes(config):
            self.put(name, tensors[name])
        self.put(OUTPUT, output, frozen=True)

    def forward(self, tokens: torch.Tensor, states: torch.Tensor) -> list[torch.Tensor]:
        """Logits [B, M, K] of each head, index i at row i: of head k, for token i + 2 + k.

        Args:
            tokens: [B, N].
            states: [B, N, n + 1, C] of the target; the last layer is read.
        """
        count = tokens.shape[1] - 1
        last = states[:, :count, -1]  # [B, M, C]
        read, found = last, []
        for k in range(self.config.num_heads):
            following = F.pad(tokens[:, 1 + k :], (0, k))  # beyond the text: not predicted
            embedded = F.embedding(following, self.tensor(EMBEDDING))  # [B, M, E]
            read = torch.cat([read, embedded], dim=-1)
            mixed = F.linear(read, self.tensor(mix(k)), self.tensor(mix(k, "bias")))
            found.append(F.linear(last + F.silu(mixed), self.tensor(OUTPUT)))
        return found

    def stored(self, dtype: torch.dtype) -> HydraHead:
        """What is stored of it, with the output matrix that is not."""
        tensors = {name: tensor.to(dtype) for name, tensor in self.trained().items()}
        return HydraHead(
            config=self.config, tensors=tensors, output=self.tensor(OUTPUT), ids=self.ids
        )


def new_hydra(
    output: torch.Tensor, *, num_heads: int, embedded: int, ids: torch.Tensor | None = None
) -> HydraNetwork:
    """Heads that start as the identity; tokens are embedded in `output`'s main directions.

    `output` [V, C]; `ids`: the tokens that they can draft.
    """
    vocab_size, width = output.shape
    config = HydraConfig(vocab_size=vocab_size, width=width, embedded=embedded, num_heads=num_heads)
    tensors = {name: torch.zeros(shape) for name, shape in shapes(config).items()}
    *_, directions = torch.linalg.svd(output.float(), full_matrices=False)
    tensors[EMBEDDING] = output.float() @ directions[:embedded].T
    return HydraNetwork(config, tensors, rows_of(output, ids), ids)

"""Which part of a decoder a rank holds: heads, columns of the feed-forward block, tokens.

Queries, keys, values, gate and up are split by outputs; the output matrices of attention and
feed-forward block by inputs, so that one sum over the ranks follows each. Embedding and head are
split by tokens. Norms are whole. Where there are more ranks than key heads, ranks share a key head
and each holds a copy.
Source: Shoeybi et al. 2019, arXiv 1909.08053, section 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.inputs import EMBEDDING
from models.targets.decoder.weights import HEAD, KEY, OUT, QUERY, VALUE, shapes
from models.targets.split.group import share_of

DOWN = "mlp.down_proj"
Cut = Callable[[str, int, int, int], torch.Tensor]  # name, dimension, first, end


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The part of one rank of `ranks`."""

    config: DecoderConfig  # of the whole decoder
    rank: int
    ranks: int

    @property
    def own(self) -> DecoderConfig:
        """The configuration of the rank's layers; its vocabulary is that of the whole."""
        whole, ranks = self.config, self.ranks
        return replace(
            whole,
            num_heads=whole.num_heads // ranks,
            num_kv_heads=max(1, whole.num_kv_heads // ranks),
            inner_width=whole.inner_width // ranks,
        )

    @property
    def num_parameters(self) -> int:
        """Of the whole decoder."""
        return sum(math.prod(shape) for shape in shapes(self.config).values())

    @property
    def tokens(self) -> range:
        """The tokens whose embeddings and logits the rank computes."""
        return share_of(self.config.input_size, self.rank, self.ranks)

    def read(self, name: str, whole: Callable[[str], torch.Tensor], cut: Cut) -> torch.Tensor:
        """The rank's part of the tensor `name`; `whole` and `cut` read the checkpoint."""
        if name in (EMBEDDING, HEAD):
            return cut(name, 0, self.tokens.start, self.tokens.stop)
        found = _split_layer(name)
        if found is None:
            return whole(name)
        matrix, kind = found
        if matrix not in (OUT, DOWN):
            return cut(name, 0, *self._range(matrix))
        if kind == "bias":  # added once
            bias = whole(name)
            return bias if self.rank == 0 else torch.zeros_like(bias)
        return cut(name, 1, *self._range(matrix))

    def _range(self, matrix: str) -> tuple[int, int]:
        """The rank's outputs (of OUT and DOWN: inputs) of a matrix of a layer."""
        own, head = self.own, self.config.head_dim
        if matrix in (KEY, VALUE):
            first = self.rank * self.config.num_kv_heads // self.ranks
            return first * head, (first + own.num_kv_heads) * head
        width = own.num_heads * head if matrix in (QUERY, OUT) else own.inner_width
        return self.rank * width, (self.rank + 1) * width


def _split_layer(name: str) -> tuple[str, str] | None:
    """(matrix, "weight" or "bias") of a layer's tensor that is split; None for a norm."""
    matrix, _, kind = name.rpartition(".")
    matrix = ".".join(matrix.split(".")[3:])  # without model.layers.<index>
    return (matrix, kind) if matrix.endswith("_proj") else None

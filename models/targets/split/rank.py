"""A decoder of which this process holds a part: the same passes, with sums over the ranks.

Letters as in decoder.py, and N ranks.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

from models.batch import Batch
from models.compute.attention import Attention, open_attention
from models.compute.linear import Linear
from models.compute.x86.kernels import activate, compiled
from models.exactness import STEADY
from models.memory.cache import KVCache
from models.targets.decoder.checkpoint import Tensors
from models.targets.decoder.config import parse_config, read_configs
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.torch_pass import TorchPass
from models.targets.decoder.weights import Layer, Weights, assemble
from models.targets.split.check import check_config
from models.targets.split.group import Group
from models.targets.split.parts import Part


class Summed(Linear):
    """A layer of which each rank has some inputs: the ranks' results are added."""

    def __init__(self, inner: Linear, group: Group) -> None:
        self._inner, self._group = inner, group

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._group.add(self._inner(x))


class Joined(Linear):
    """The head, of which each rank has some outputs: the ranks' results are joined."""

    def __init__(self, inner: Linear, group: Group, outputs: int) -> None:
        self._inner, self._group, self._outputs = inner, group, outputs

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._group.concat(self._inner(x), self._outputs)


class RankDecoder(Decoder):
    """One rank's part of a decoder; all ranks must score the same batches in the same order.

    Each returns the whole logits. With the compiled kernels, and sums in the order of the ranks, a
    token has the same bits in every batch; with another number of ranks sums are rounded
    differently.
    """

    def __init__(
        self,
        part: Part,
        weights: Weights,
        group: Group,
        *,
        dtype: torch.dtype,
        device: torch.device,
        kernels: bool,
    ) -> None:
        shared = replace(
            weights,
            layers=tuple(_summed(layer, group) for layer in weights.layers),
            head=Joined(weights.head, group, part.config.input_size),
        )
        super().__init__(part.own, shared, dtype=dtype, device=device, kernels=False)
        self.group, self._part = group, part
        self.num_parameters = part.num_parameters
        self.steady = kernels and device.type == "cpu" and compiled()
        if self.steady:
            self._pass = TorchPass(
                shared, self._heads, self.config.norm_eps, silu=partial(activate, function="silu")
            )

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The first layer's input [T, width] for `tokens` [T]: each rank knows some tokens."""
        own, table = self._part.tokens, self._weights.embedding
        known = (tokens >= own.start) & (tokens < own.stop)
        found = F.embedding((tokens - own.start).clamp(0, len(own) - 1), table)
        return self.group.add(found * known.unsqueeze(-1))

    def _attention(self, batch: Batch, cache: KVCache) -> Attention:
        if self.steady:
            return open_attention(batch, cache, self._heads, self.rotary)
        return super()._attention(batch, cache)


def _summed(layer: Layer, group: Group) -> Layer:
    return replace(layer, out=Summed(layer.out, group), down=Summed(layer.down, group))


Make = Callable[..., RankDecoder]


def load_rank(
    path: Path,
    group: Group,
    *,
    dtype: torch.dtype,
    device: torch.device,
    arithmetic: str = STEADY,
    make: Make = RankDecoder,
) -> RankDecoder:
    """This rank's part of a checkpoint; reads no more of the split tensors than the part.

    `make`: RankDecoder, or the class of the first rank (models/targets/split/leader.py).

    Raises:
        InvalidOption: the decoder cannot be split over so many ranks.
        UnsupportedCheckpoint: as `load_decoder` does.
    """
    config = parse_config(*read_configs(path))
    check_config(config, group.size)
    part = Part(config=config, rank=group.rank, ranks=group.size)
    tensors, kernels = Tensors(path, config), arithmetic == STEADY
    weights = assemble(
        part.own,
        lambda name: part.read(name, tensors.read, tensors.cut),
        dtype=dtype,
        device=device,
        kernels=kernels,
    )
    return make(part, weights, group, dtype=dtype, device=device, kernels=kernels)

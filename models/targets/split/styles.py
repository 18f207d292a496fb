"""The styles of transformers' tensor-parallel plans: what a rank holds of a module, and its sums.

A matrix is split by its outputs ("colwise") or its inputs ("rowwise"); a table of embeddings by
tokens. Letters: T tokens, O outputs, I inputs.
Source: Shoeybi et al. 2019, arXiv 1909.08053, section 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.targets.split.group import Group, share_of

Forward = Callable[[torch.Tensor], torch.Tensor]
Shared = Callable[[Any, Group], Forward]  # a module and its group: how it runs on all ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a module is split: the dimension of its weight, and how the ranks' results meet.

    `bias`: each rank has that of its outputs; otherwise the first rank alone adds it. `apart`: its
    inputs and outputs are whole on every rank, so that it can as well be left whole.
    """

    dim: int
    bias: bool = False
    apart: bool = False
    shared: Shared | None = None  # None: the module runs as it is


def _joined(module: Any, group: Group) -> Forward:
    """Each rank has some outputs; all get all of them."""
    inner, outputs = module.forward, module.out_features
    return lambda x: group.concat(inner(x), outputs)


def _summed(module: Any, group: Group) -> Forward:
    """Each rank has some inputs; the results are added."""
    inner = module.forward
    return lambda x: group.add(inner(x))


def _divided(module: Any, group: Group) -> Forward:
    """All ranks have all inputs, each uses its own."""
    summed, inputs = _summed(module, group), share_of(module.in_features, group.rank, group.size)
    return lambda x: summed(x[..., inputs.start : inputs.stop])


def _looked_up(module: Any, group: Group) -> Forward:
    """Each rank knows some tokens [T]; the vectors that it does not know are 0 there."""
    inner, own = module.forward, share_of(module.num_embeddings, group.rank, group.size)
    module.padding_idx = None  # matters in training only, and may lie outside of the part

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        known = (tokens >= own.start) & (tokens < own.stop)
        found = inner((tokens - own.start).clamp(0, len(own) - 1))
        return group.add(found * known.unsqueeze(-1))

    return embed


JOINED = Style(dim=0, bias=True, apart=True, shared=_joined)
DIVIDED = Style(dim=1, apart=True, shared=_divided)
STYLES: Mapping[str, Style | None] = {
    "colwise": Style(dim=0, bias=True),
    "colwise_gather_output": JOINED,
    "colwise_rep": JOINED,
    "rowwise": Style(dim=1, shared=_summed),
    "rowwise_split_input": DIVIDED,
    "rowwise_rep": DIVIDED,
    "embedding_rowwise": Style(dim=0, apart=True, shared=_looked_up),
    "replicated_with_grad_allreduce": None,  # whole on every rank, as in generation there is no
    "replicate": None,  # gradient
}


def split_module(module: nn.Module, style: Style, group: Group) -> None:
    """Make a whole module, which holds no data yet, this rank's part of it."""
    if style.shared is not None:
        module.forward = style.shared(module, group)
    for name, weight in list(module.named_parameters(recurse=False)):
        shape = list(weight.shape)
        if name != "bias":
            shape[style.dim] = len(share_of(shape[style.dim], group.rank, group.size))
        elif style.bias:
            shape[0] = len(share_of(shape[0], group.rank, group.size))
        made = torch.empty(shape, dtype=weight.dtype, device=weight.device)
        setattr(module, name, nn.Parameter(made, requires_grad=False))

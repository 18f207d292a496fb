"""A module whose tensors have the dotted names of a checkpoint."""

import torch
from torch import nn


class Named(nn.Module):
    """Tensors by name; `frozen` ones are not trained and not part of the state."""

    def put(self, name: str, tensor: torch.Tensor, *, frozen: bool = False) -> None:
        """Add a tensor, in float32."""
        *path, last = name.split(".")
        place: nn.Module = self
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        if frozen:
            place.register_buffer(last, tensor.float(), persistent=False)
        else:
            place.register_parameter(last, nn.Parameter(tensor.float().clone()))

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor of this name."""
        path, _, last = name.rpartition(".")
        found: torch.Tensor = getattr(self.get_submodule(path), last)
        return found

    def trained(self) -> dict[str, torch.Tensor]:
        """The trained tensors by name."""
        return {name: weight.detach() for name, weight in self.named_parameters()}


def rows_of(head: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
    """The rows of an output matrix [V, C] for these tokens [K]; None: for all."""
    return head if ids is None else head[ids]

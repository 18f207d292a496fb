"""The plain way to optimise: each worker holds all weights and moments, gradients are summed."""

from collections.abc import Mapping

import torch
from torch import nn

from models.training.engines.worker import Worker

CLIP = 1.0
BETAS = (0.9, 0.95)
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's names


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """The optimiser of every training; the rate is set in each step."""
    return torch.optim.AdamW(model.parameters(), lr=1.0, betas=BETAS, weight_decay=0.0)


def moments_of(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments of all parameters that had gradients: {"NAME/exp_avg", "NAME/exp_avg_sq"}."""
    return {
        f"{name}/{key}": optimiser.state[weight][key]
        for name, weight in model.named_parameters()
        if weight in optimiser.state
        for key in MOMENTS
    }


def resume(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    step: int,
) -> None:
    """Put weights and moments back as they were after `step` steps."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])
            if f"{name}/{MOMENTS[0]}" in moments:
                found = {
                    key: moments[f"{name}/{key}"].to(weight.device, copy=True) for key in MOMENTS
                }
                optimiser.state[weight] = {"step": torch.tensor(float(step)), **found}


class Replicas:
    """An `Engine` (engine.py) without DeepSpeed."""

    def __init__(self, model: nn.Module, worker: Worker, *, accumulate: int = 1) -> None:
        self.accumulate = accumulate
        self.model, self._worker, self._optimiser = model, worker, adamw(model)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of this worker's part of the step's loss."""
        loss.backward()

    def step(self, rate: float) -> float:
        """Sum gradients over workers, clip, change the weights; returns the gradient's norm."""
        self._sum_gradients()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        return float(norm)

    def weights(self) -> dict[str, torch.Tensor]:
        """Parameters by name, in float32."""
        return {name: weight.detach() for name, weight in self.model.named_parameters()}

    def moments(self) -> dict[str, torch.Tensor]:
        """AdamW's moments: {"NAME/exp_avg", "NAME/exp_avg_sq"}."""
        return moments_of(self.model, self._optimiser)

    def load(
        self, weights: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor], step: int
    ) -> None:
        """Continue after `step` steps."""
        resume(self.model, self._optimiser, weights, moments, step)

    def _sum_gradients(self) -> None:
        parameters = list(self.model.parameters())
        whole = torch.cat([_gradient(weight).flatten() for weight in parameters])
        self._worker.add(whole)
        first = 0
        for weight in parameters:
            weight.grad = whole[first : first + weight.numel()].view_as(weight)
            first += weight.numel()


def _gradient(weight: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad

"""DeepSpeed's ZeRO: gradients, moments and weights are spread over the workers.

The only file that imports deepspeed. Tensors go in and out whole, so a state that one stage wrote
can be continued with another one, with another number of workers, or without DeepSpeed.
"""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from models.training.engines.replicas import CLIP, MOMENTS, adamw

# DeepSpeed's own defaults are for GPUs: buffers of two gigabytes, and streams.
ON_CPU = {"overlap_comm": False, "reduce_bucket_size": 2**22, "allgather_bucket_size": 2**22}


class Zero:
    """An `Engine` (engine.py) of ZeRO stage 1, 2 or 3; needs a process group."""

    def __init__(
        self, model: nn.Module, told: Mapping[str, Any], *, batch: int, world: int
    ) -> None:
        """Spread a model.

        Args:
            told: DeepSpeed's configuration with a stage, without its optimizer and scheduler.
            batch: samples of a step, of all `world` workers together; every worker takes as many
                in each part.
        """
        on_cpu = next(model.parameters()).device.type == "cpu"
        if on_cpu and torch.cuda.is_available():
            os.environ["DS_ACCELERATOR"] = "cpu"  # else it would move the model to the GPU
        import deepspeed

        # DeepSpeed calls collectives by names that torch deprecated.
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        if on_cpu:
            # DeepSpeed would compile an all-reduce for CPUs, which takes a minute and replaces
            # gloo's; it looks here for what can be compiled.
            setattr(deepspeed.ops, "__compatible_ops__", {})  # noqa: B010
        defaults = ON_CPU if on_cpu else {}
        self.accumulate = int(told.get("gradient_accumulation_steps", 1))
        self._world, self._stage = world, int(told["zero_optimization"]["stage"])
        self._half = bool(told.get("bf16", {}).get("enabled", False))
        self._parameters = dict(model.named_parameters())
        self._engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=adamw(model),
            config={
                **told,
                "zero_optimization": {**defaults, **told["zero_optimization"]},
                "train_batch_size": batch,
                "train_micro_batch_size_per_gpu": batch // world // self.accumulate,
                "gradient_accumulation_steps": self.accumulate,
                "gradient_clipping": CLIP,
                "zero_allow_untested_optimizer": True,
            },
            dist_init_required=False,
        )
        self.model: nn.Module = self._engine
        self._optimiser: torch.optim.Optimizer = self._engine.optimizer.optimizer
        self._make_moments()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a part of the step's loss."""
        # DeepSpeed takes the mean over parts and workers; this loss is to be summed over them.
        self._engine.backward(loss * (self._world * self.accumulate))
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # counts the part

    def step(self, rate: float) -> float:
        """Change the weights after all parts; returns the gradient's norm."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def weights(self) -> dict[str, torch.Tensor]:
        """Parameters by name, whole, in float32."""
        if self._stage < 3 and not self._half:
            return {name: parameter.detach() for name, parameter in self._parameters.items()}
        from deepspeed.utils import safe_get_full_fp32_param as whole

        return {
            name: whole(parameter).detach().float() for name, parameter in self._parameters.items()
        }

    def moments(self) -> dict[str, torch.Tensor]:
        """AdamW's moments, whole."""
        from deepspeed.utils import safe_get_full_optimizer_state as whole

        return {
            f"{name}/{key}": _on_cpu(whole(parameter, key))
            for name, parameter in self._parameters.items()
            for key in MOMENTS
        }

    def load(
        self, weights: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor], step: int
    ) -> None:
        """Continue after `step` steps."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        for name, parameter in self._parameters.items():
            safe_set_full_fp32_param(parameter, weights[name].to(parameter.device))
            for key in MOMENTS:
                moment = moments[f"{name}/{key}"].to(parameter.device)
                safe_set_full_optimizer_state(parameter, moment, key)
            with self._gathered([parameter]), torch.no_grad():
                parameter.copy_(weights[name])  # the working weights, which the rest left alone
        self._count(step)

    def _make_moments(self) -> None:
        """A step with zero gradients: before it, there are no moments to read or to set."""
        for _ in range(self.accumulate):
            with self._gathered(list(self._parameters.values())):
                nothing = [parameter.sum() * 0 for parameter in self._parameters.values()]
                self._engine.backward(torch.stack(nothing).sum())
            self._engine.step()
        self._count(0)

    def _count(self, step: int) -> None:
        """Set the number of steps that AdamW corrects its moments for."""
        for state in self._optimiser.state.values():
            state["step"].fill_(float(step))

    def _gathered(self, parameters: list[nn.Parameter]) -> Any:
        """A context in which weights of stage 3 are whole; the first worker's changes are kept."""
        import deepspeed

        return deepspeed.zero.GatheredParameters(
            parameters, modifier_rank=0, enabled=self._stage == 3
        )


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().cpu()

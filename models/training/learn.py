"""A training stage: AdamW with a progress bar, and a saved state to continue from."""

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

SAVE_SECONDS = 60
# (step, random numbers of the step) -> the loss to lower, and what the progress bar shows
Loss = Callable[[int, torch.Generator], tuple[torch.Tensor, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`rate`: the peak learning rate. `state`: the file of the saved state, or None."""

    name: str
    steps: int
    rate: float
    seed: int = 0
    decay: float = 0.03
    state: Path | None = None

    def rate_at(self, step: int) -> float:
        """The learning rate: linear warm-up over 5 % of the steps, then linear decay to zero."""
        rise, fall = 20 * (step + 1) / self.steps, (self.steps - step) / (0.95 * self.steps)
        return self.rate * min(1.0, rise, fall)

    def random(self, step: int) -> torch.Generator:
        """The random numbers of a step, which do not depend on interruptions."""
        return torch.Generator().manual_seed(
            zlib.crc32(repr((self.seed, self.name, step)).encode())
        )


def learn(
    stage: Stage, model: nn.Module, loss: Loss, more: Mapping[str, torch.Tensor] | None = None
) -> dict[str, float]:
    """Train to the end of the stage, from its saved state if there is one; returns steps and times.

    `more`: tensors besides the model that the loss changes in place; they are part of the state.
    """
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=stage.rate, betas=(0.9, 0.98), weight_decay=stage.decay
    )
    state = _State(stage, model, optimiser, dict(more or {}))
    done, spent = state.load()
    started, saved = (time.monotonic(), time.process_time()), time.monotonic()
    model.train()
    bar = tqdm(range(done, stage.steps), stage.name, total=stage.steps, initial=done, unit="step")
    for step in bar:
        optimiser.param_groups[0]["lr"] = stage.rate_at(step)
        value, shown = loss(step, stage.random(step))
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        bar.set_postfix_str(shown)
        if time.monotonic() - saved > SAVE_SECONDS or step + 1 == stage.steps:
            saved = time.monotonic()
            state.save(step + 1, _sum(spent, started))
    model.eval()
    wall, cpu = _sum(spent, started)
    return {"steps": stage.steps, "seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}


def _sum(spent: tuple[float, float], started: tuple[float, float]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of all runs together."""
    now = time.monotonic(), time.process_time()
    return spent[0] + now[0] - started[0], spent[1] + now[1] - started[1]


class _State:
    """The saved state: weights, moments and `more` as safetensors, counters in the header."""

    def __init__(
        self,
        stage: Stage,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        more: dict[str, torch.Tensor],
    ) -> None:
        self._stage, self._model, self._optimiser, self._more = stage, model, optimiser, more
        sizes = [tuple(p.shape) for p in model.parameters()]
        self._tag = {"run": repr((stage.name, stage.steps, stage.rate, stage.seed, sizes))}

    def save(self, step: int, spent: tuple[float, float]) -> None:
        if self._stage.state is None:
            return
        tensors = {f"model.{name}": t.detach() for name, t in self._model.named_parameters()}
        tensors |= {f"more.{name}": tensor for name, tensor in self._more.items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"moments.{index}.{key}": value for key, value in moments.items()}
        header = {**self._tag, "step": str(step), "wall": str(spent[0]), "cpu": str(spent[1])}
        new = self._stage.state.with_suffix(".new")
        new.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.contiguous() for name, t in tensors.items()}, new, header)
        new.replace(self._stage.state)

    def load(self) -> tuple[int, tuple[float, float]]:
        """Load a state of the same run: its steps and seconds; zeros if there is none."""
        file = self._stage.state
        if file is None or not file.exists():
            return 0, (0.0, 0.0)
        with safe_open(file, "pt") as opened:
            header = opened.metadata()
            if header.get("run") != self._tag["run"]:
                return 0, (0.0, 0.0)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        self._put(tensors)
        return int(header["step"]), (float(header["wall"]), float(header["cpu"]))

    def _put(self, tensors: dict[str, torch.Tensor]) -> None:
        weights = dict(self._model.named_parameters())
        moments = self._optimiser.state_dict()
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest].data.copy_(tensor)
            elif kind == "more":
                self._more[rest].copy_(tensor)
            else:
                index, _, key = rest.partition(".")
                moments["state"].setdefault(int(index), {})[key] = tensor
        self._optimiser.load_state_dict(moments)

"""A training stage in one process: AdamW with a progress bar, and saved states to continue from."""

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from models.training.checkpoint import read_tensors, read_told, states, write_state
from models.training.engines.replicas import moments_of, resume
from models.training.schedule import rate_at

SAVE_SECONDS = 60
# (step, random numbers of the step) -> the loss to lower, and what the progress bar shows
Loss = Callable[[int, torch.Generator], tuple[torch.Tensor, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`rate`: the peak learning rate. `state`: the folder of saved states, or None."""

    name: str
    steps: int
    rate: float
    seed: int = 0
    decay: float = 0.03
    state: Path | None = None

    def rate_at(self, step: int) -> float:
        """The learning rate: linear warm-up over 5 % of the steps, then linear decay to zero."""
        return rate_at(step, steps=self.steps, peak=self.rate, warm_up=0.05 * self.steps)

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
    """The saved states: weights, moments and `more`, with the seconds spent."""

    def __init__(
        self,
        stage: Stage,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        more: dict[str, torch.Tensor],
    ) -> None:
        self._folder, self._model, self._optimiser, self._more = stage.state, model, optimiser, more
        sizes = [tuple(p.shape) for p in model.parameters()]
        self._run = repr((stage.name, stage.steps, stage.rate, stage.seed, sizes))

    def save(self, step: int, spent: tuple[float, float]) -> None:
        if self._folder is None:
            return
        files: dict[str, Mapping[str, torch.Tensor]] = {
            "weights": dict(self._model.named_parameters()),
            "moments": moments_of(self._model, self._optimiser),
            "more": self._more,
        }
        write_state(self._folder, step, {"run": self._run, "spent": spent}, files)

    def load(self) -> tuple[int, tuple[float, float]]:
        """Load a state of the same run: its steps and seconds; zeros if there is none."""
        found = states(self._folder) if self._folder is not None else []
        told = read_told(found[-1]) if found else {}
        if told.get("run") != self._run:
            return 0, (0.0, 0.0)
        weights, moments = (read_tensors(found[-1], name) for name in ("weights", "moments"))
        resume(self._model, self._optimiser, weights, moments, told["step"])
        for name, tensor in read_tensors(found[-1], "more").items():
            self._more[name].copy_(tensor)
        wall, cpu = told["spent"]
        return told["step"], (wall, cpu)

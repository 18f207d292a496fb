"""Rotary positions: a table of unit complex numbers, one row per position."""

import math
from dataclasses import replace

import torch

from models.config import RotaryConfig


def frequencies(config: RotaryConfig, head_dim: int) -> torch.Tensor:
    """Angle per position of each pair of dimensions: [head_dim / 2] float32; of a grid half."""
    if config.kind == "grid":
        return frequencies(replace(config, kind="default"), head_dim // 2)
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain = 1.0 / (config.theta**exponents)
    if config.kind == "linear":
        return plain / config.factor
    if config.kind == "llama3":
        return _stretch(plain, config)
    return plain


def _stretch(plain: torch.Tensor, config: RotaryConfig) -> torch.Tensor:
    """Llama 3's rule: long waves are slowed by `factor`, short ones kept, blended in between."""
    low, high = config.low_freq_factor, config.high_freq_factor
    waves = config.original_context_length * plain / (2 * math.pi)  # turns within the old context
    share = ((waves - low) / (high - low)).clamp(0, 1)
    return (1 - share) * plain / config.factor + share * plain


class Rotary:
    """The rotation at each position, tabled as far as it was needed.

    The rows do not depend on the table's length: the angle is rounded once, in float32, as
    transformers does, its cosine and sine come from float64.
    """

    def __init__(self, config: RotaryConfig, head_dim: int, device: torch.device) -> None:
        self._row_length = config.row_length if config.kind == "grid" else None
        self._frequencies = frequencies(config, head_dim).to(device)
        self.table = torch.empty(0, head_dim // 2, dtype=torch.complex64, device=device)

    def reserve(self, positions: int) -> None:
        """Make the table hold positions 0 to `positions` - 1."""
        if positions > len(self.table):
            steps = torch.arange(positions, device=self.table.device, dtype=torch.float32)
            if self._row_length is None:
                self.table = _unit(steps[:, None] * self._frequencies)
            else:
                self.table = _grid(steps, self._row_length, self._frequencies)

    def __call__(self, positions: torch.Tensor) -> torch.Tensor:
        """The rotations at `positions` [T]: [T, 1, head_dim / 2] complex64."""
        return self.table[positions].unsqueeze(1)


def _unit(angles: torch.Tensor) -> torch.Tensor:
    """Unit complex numbers of float32 angles."""
    wide = angles.double()
    return torch.polar(torch.ones_like(wide), wide).to(torch.complex64)


def _grid(steps: torch.Tensor, row_length: int, turns: torch.Tensor) -> torch.Tensor:
    """Rows turn the first half of the pairs, columns the second: [positions, head_dim / 2].

    Position 0, the condition, is multiplied by 0, as LlamaGen's table does: its key and query are
    null vectors, so every place gives it the score 0.
    """
    places = (steps - 1).clamp(min=0)
    rows = torch.div(places, row_length, rounding_mode="floor")
    columns = places - rows * row_length
    table = _unit(torch.cat([rows[:, None] * turns, columns[:, None] * turns], dim=1))
    table[:1] = 0
    return table

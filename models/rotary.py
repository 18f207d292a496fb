"""Rotary positions: a table of unit complex numbers, one row per position."""

import math

import torch

from models.config import RotaryConfig


def frequencies(config: RotaryConfig, head_dim: int) -> torch.Tensor:
    """Angle per position of each pair of dimensions: [head_dim / 2] float32."""
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
        self._frequencies = frequencies(config, head_dim).to(device)
        self._table = torch.empty(0, head_dim // 2, dtype=torch.complex64, device=device)

    def reserve(self, positions: int) -> None:
        """Make the table hold positions 0 to `positions` - 1."""
        if positions > len(self._table):
            steps = torch.arange(positions, device=self._table.device, dtype=torch.float32)
            angles = (steps[:, None] * self._frequencies).double()
            self._table = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)

    def __call__(self, positions: torch.Tensor) -> torch.Tensor:
        """The rotations at `positions` [T]: [T, 1, head_dim / 2] complex64."""
        return self._table[positions].unsqueeze(1)

"""Rotary embedding: a table of unit complex numbers, one row for each position."""

import math
from dataclasses import replace

import torch

from models.targets.decoder.config import RotaryConfig


def frequencies(config: RotaryConfig, head_dim: int) -> torch.Tensor:
    """Angle per position of each pair of dimensions, float32: [head_dim / 2]; half for grids."""
    if config.kind == "grid":
        return frequencies(replace(config, kind="default"), head_dim // 2)
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    # Python's power, rounded once: torch's power differs in the last bit between kinds of CPU.
    powers = [config.theta**exponent for exponent in exponents.tolist()]
    plain = 1.0 / torch.tensor(powers, dtype=torch.float32)
    if config.kind == "linear":
        return plain / config.factor
    if config.kind == "llama3":
        return _stretch(plain, config)
    return plain


def _stretch(plain: torch.Tensor, config: RotaryConfig) -> torch.Tensor:
    """Llama 3's rule: divide low frequencies by `factor`, keep high ones, interpolate between."""
    low, high = config.low_freq_factor, config.high_freq_factor
    waves = config.original_context_length * plain / (2 * math.pi)  # turns within the old context
    share = ((waves - low) / (high - low)).clamp(0, 1)
    return (1 - share) * plain / config.factor + share * plain


PART = 16_384  # positions whose rotations are computed at once, in float64


class Rotary:
    """A table of the rotation at each position, extended on demand.

    The rows do not depend on the table's length or the machine. The angle is rounded once, to
    float32, as in transformers. Its cosine and sine are computed in float64.
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
                parts = steps[:, None].split(PART)
                self.table = torch.cat([_unit(part * self._frequencies) for part in parts])
            else:
                self.table = _grid(steps, self._row_length, self._frequencies)

    def __call__(self, positions: torch.Tensor) -> torch.Tensor:
        """The rotations at `positions` [T]: [T, 1, head_dim / 2] complex64."""
        return self.table[positions].unsqueeze(1)


# Pi / 2 in three parts. Products of the first two with integers below 2**20 are exact in float64.
QUARTERS = (float.fromhex("0x1.921fb544p+0"), float.fromhex("0x1.0b4611a6p-34"))
REST = float.fromhex("0x1.3198a2e037073p-69")
SINE = (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800, 1 / 6227020800, -1 / 1307674368000)
COSINE = (-1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800, 1 / 479001600, -1 / 87178291200)


def _unit(angles: torch.Tensor) -> torch.Tensor:
    """Unit complex numbers of float32 angles, |angle| < 2**20.

    Uses sums and products only, which IEEE 754 rounds the same way on every machine and device.
    torch's sine and cosine differ between machines.
    """
    wide = angles.double()
    turns = (wide * (2 / math.pi)).round()
    rest = wide - turns * QUARTERS[0] - turns * QUARTERS[1] - turns * REST  # within ±pi/4
    square = rest * rest
    sine, cosine = (
        rest + rest * square * _series(SINE, square),
        1 + square * _series(COSINE, square),
    )
    quadrant = turns.long() & 3
    odd = (quadrant & 1).bool()
    real, imaginary = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    real = torch.where((quadrant == 1) | (quadrant == 2), -real, real)
    imaginary = torch.where(quadrant >= 2, -imaginary, imaginary)
    return torch.complex(real.float(), imaginary.float())


def _series(coefficients: tuple[float, ...], x: torch.Tensor) -> torch.Tensor:
    """The polynomial with these coefficients, constant term first, at x."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _grid(steps: torch.Tensor, row_length: int, turns: torch.Tensor) -> torch.Tensor:
    """The rotations of grid positions, [positions, head_dim / 2].

    The first half of the pairs rotates with the row, the second with the column. Position 0, the
    class, is multiplied by 0, as in LlamaGen's table: its key and query are zero vectors, so every
    place gives it the attention score 0.
    """
    places = (steps - 1).clamp(min=0)
    rows = torch.div(places, row_length, rounding_mode="floor")
    columns = places - rows * row_length
    table = _unit(torch.cat([rows[:, None] * turns, columns[:, None] * turns], dim=1))
    table[:1] = 0
    return table

"""The flow map `flow:K20:v1`: Gaussian noise is carried to a code, whose law is the given one.

A rectified flow from N(0, I) at t = 1 to the codes, each with its probability, at t = 0. Its
velocity has a closed form, so no network takes part. Heun's method over a quadratic grid of K steps
solves it, and the code nearest to the end is the token. The grid, the method and K decide which
token a noise becomes. So they are part of the name, and changing one of them needs a new name.
Source: Liu et al. 2024, Distilled Decoding (arXiv 2412.17153), section 3.
Letters: R rows, V codes of width C, B rows solved together.
"""

from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from models.batch import Floats, Ints
from models.compute.x86 import kernels
from models.errors import InvalidOption
from models.registry import FLOW
from models.sampling.noise import Purpose, normals, row_keys

if TYPE_CHECKING:
    from models.sampling.maps import NoiseMap
    from models.targets.target import Target

STEPS = 20
NAME = FLOW
LAST = 1e-3  # the time of the final Euler step
LOST = -40.0  # weights of codes below e^LOST of the greatest are 0: rounding would lose them
BLOCK_NUMBERS = 2**13  # of one block [B, V]
TILE = 8  # a block's rows are a multiple of it, so that no row is a remainder to a kernel
AHEAD = 64  # positions of a request whose noise is drawn together
FILL = 16  # the compiled kernel reads so many codes at once


class FlowMap:
    """From laws over codes and Gaussian noise to tokens; a pure function for given codes.

    It computes in float64, with the compiled kernels where available: then a row has the same bits
    in every batch and on every x86 CPU with AVX2. torch solves rows in blocks of one size, which
    depends on V only. So a row does not depend on the others there, too. Laws of any device are
    solved on the CPU; the result is on their device.
    """

    def __init__(self, codes: torch.Tensor, *, steps: int = STEPS) -> None:
        """`codes` [V, C]. With other `steps` than STEPS it is another map than NAME."""
        self.codes = codes.detach().cpu().double()
        self.vocab_size, self.width = self.codes.shape
        self._rows = TILE * max(1, BLOCK_NUMBERS // self.vocab_size // TILE)
        self._half = self.codes.square().sum(-1) / 2  # [V] |c|² / 2
        self._times = [LAST + (1 - LAST) * (1 - k / steps) ** 2 for k in range(steps + 1)]

    def __call__(self, probs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The token of each row.

        Args:
            probs: [R, V] probabilities, at least one above 0 in each row; need not sum to 1.
            noise: [R, C] standard normal numbers.
        Returns:
            [R] int64. A code of probability 0 is never chosen.
        Raises:
            ValueError: a shape does not fit the codes, or a row has no probability above 0.
        """
        return self.of_logits(probs.cpu().double().log(), noise).to(probs.device)

    def of_logits(self, logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The same of logarithms of probabilities [R, V], up to a constant of each row.

        -inf stands for probability 0.
        """
        logs = self._checked(logits)
        if noise.shape != (len(logs), self.width):
            wanted = (len(logs), self.width)
            raise ValueError(f"noise has shape {tuple(noise.shape)}, not {wanted}")
        return self._solve(logs, noise, self._times, tokens=True).to(logits.device)

    def noise_of(
        self, probs: torch.Tensor, tokens: torch.Tensor, start: torch.Tensor
    ) -> torch.Tensor:
        """Noise that this map carries to `tokens`: the flow solved from t = 0 to t = 1.

        If `tokens` are drawn from `probs` and `start` is standard normal, the result is standard
        normal, however the tokens were drawn. The map returns `tokens` for all but about 0.5 % of
        rows, where the errors of the two solutions matter: check it.

        Args:
            probs: [R, V] as for a call.
            tokens: [R] int64, each of probability above 0.
            start: [R, C] standard normal numbers.
        Returns:
            [R, C] float64.
        Raises:
            ValueError: as for a call, or a token has probability 0.
        """
        device, probs, tokens = probs.device, probs.cpu(), tokens.cpu()
        logs = self._checked(probs.double().log())
        if not bool((probs.gather(1, tokens[:, None]) > 0).all()):
            raise ValueError("a token has probability 0: no noise leads to it")
        x = (1 - LAST) * self.codes[tokens] + LAST * start.cpu().double()
        return self._solve(logs, x, self._times[::-1]).to(device)

    def _checked(self, logs: torch.Tensor) -> torch.Tensor:
        """[R, V] float64."""
        if logs.ndim != 2 or logs.shape[1] != self.vocab_size:
            told = f"(rows, {self.vocab_size})"
            raise ValueError(f"probabilities have shape {tuple(logs.shape)}, not {told}")
        if bool((logs == -torch.inf).all(-1).any()):
            raise ValueError("a row has no probability above 0")
        return logs.cpu().double()

    def _solve(
        self, logs: torch.Tensor, x: torch.Tensor, times: list[float], *, tokens: bool = False
    ) -> torch.Tensor:
        """The flow from x [R, C] over `times`; or the tokens [R] at its end."""
        if kernels.compiled():
            return kernels.flow(*self._padded, _filled(logs, -torch.inf), times, x, tokens=tokens)
        return self._in_blocks(logs, x.cpu().double(), times, tokens=tokens)

    @cached_property
    def _padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes [C, V] and half their squares [V] in the form of the compiled kernel."""
        return _filled(self.codes.T, 0.0), _filled(self._half, 0.0)

    def _in_blocks(
        self, logs: torch.Tensor, x: torch.Tensor, times: list[float], *, tokens: bool
    ) -> torch.Tensor:
        """With torch, in blocks of equal size; the last one is padded."""
        rows, parts = self._rows, []
        for first in range(0, max(1, len(x)), rows):
            some, law = x[first : first + rows], logs[first : first + rows]
            lack = rows - len(some)
            if lack:
                some = torch.cat([some, some.new_zeros(lack, self.width)])
                law = torch.cat([law, law.new_zeros(lack, self.vocab_size)])
            end = self._heun(some, law, times)
            parts.append((self._nearest(end, law) if tokens else end)[: rows - lack])
        return torch.cat(parts)

    def _nearest(self, x: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
        """[B] the codes nearest to where the flow ends."""
        mean = self._mean(x, logs, LAST)  # x - t * velocity
        nearness = mean @ self.codes.T - self._half
        return nearness.masked_fill_(logs == -torch.inf, -torch.inf).argmax(-1)

    def _heun(self, x: torch.Tensor, logs: torch.Tensor, times: list[float]) -> torch.Tensor:
        """Heun's method from the first of the times to the last; [B, C]."""
        for t, after in pairwise(times):
            step = after - t
            first = (x - self._mean(x, logs, t)) / t
            ahead = x + step * first
            second = (ahead - self._mean(ahead, logs, after)) / after
            x = x + (step / 2) * (first + second)
        return x

    def _mean(self, x: torch.Tensor, logs: torch.Tensor, t: float) -> torch.Tensor:
        """[B, C] the mean code given x at time t: codes weighted by p_j N(x; (1-t) c_j, t² I)."""
        scale = (1 - t) / t**2
        scores = torch.addmm(logs - scale * (1 - t) * self._half, x, self.codes.T, alpha=scale)
        scores -= scores.amax(-1, keepdim=True)
        weights = scores.exp().masked_fill_(scores < LOST, 0.0)
        return weights @ self.codes / weights.sum(-1, keepdim=True)


def flow_noise(seeds: Ints, positions: Ints, width: int) -> torch.Tensor:
    """The Gaussian noise of requests' positions.

    Args:
        seeds: [R] of the requests. positions: [R] absolute positions in their sequences.
    Returns:
        [R, width] float32 standard normal numbers.
    """
    return normals(row_keys(seeds, positions, Purpose.FLOW), width).float()


@lru_cache(4096)
def _noise_ahead(seed: int, part: int, width: int) -> Floats:
    """[AHEAD, width] the noise of positions from part * AHEAD on: drawing few costs the same."""
    positions = part * AHEAD + np.arange(AHEAD)
    noise: Floats = flow_noise(np.full(AHEAD, seed), positions, width).numpy()
    return noise


def _noise_of_rows(seeds: Ints, positions: Ints, width: int) -> torch.Tensor:
    """`flow_noise` of rows, most of which are of a few requests and follow one another."""
    pairs = zip(seeds.tolist(), positions.tolist(), strict=True)
    rows = [_noise_ahead(seed, at // AHEAD, width)[at % AHEAD] for seed, at in pairs]
    return torch.from_numpy(np.stack(rows))


def flow_map(target: "Target") -> "NoiseMap":
    """The flow map over the target's codebook, as a map of requests (models/sampling/maps.py).

    Raises:
        InvalidOption: the target has no codebook.
    """
    if target.codes is None:
        raise InvalidOption("noise", NAME, "gumbel: the target has no codebook of image tokens")
    chart = FlowMap(target.codes)

    def choose(values: torch.Tensor, seeds: Ints, positions: Ints) -> Ints:
        noise = _noise_of_rows(seeds, positions, chart.width)
        tokens: Ints = chart.of_logits(values, noise).cpu().numpy()
        return tokens

    return choose


def _filled(x: torch.Tensor, value: float) -> torch.Tensor:
    """The tensor with its last dimension filled up to whole blocks of the compiled kernel."""
    return F.pad(x, (0, -x.shape[-1] % FILL), value=value).contiguous()

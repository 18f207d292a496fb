"""The flow map `flow:K20:v1`: Gaussian noise is carried to a code, whose law is the given one.

A rectified flow from N(0, I) at t = 1 to the codes, each with its probability, at t = 0. Its
velocity has a closed form, so no network takes part. Heun's method over a quadratic grid of K steps
solves it, and the code nearest to the end is the token. The grid, the method and K decide which
token a noise becomes. So they are part of the name, and changing one of them needs a new name.
Source: Liu et al. 2024, Distilled Decoding (arXiv 2412.17153), section 3.
Letters: R rows, V codes of width C, B rows solved together.
"""

from collections.abc import Callable
from itertools import pairwise

import torch

STEPS = 20
NAME = f"flow:K{STEPS}:v1"
LAST = 1e-3  # the time of the final Euler step
BLOCKS = {torch.float64: 2**13, torch.float32: 2**16}  # numbers of one block [B, V]
TILE = 8  # a block's rows are a multiple of it, so that no row is a remainder to a kernel


class FlowMap:
    """From laws over codes and Gaussian noise to tokens; a pure function for given codes.

    In float64, rows are solved in blocks of one size, which depends on V only. So the result of a
    row does not depend on the number of rows or on the rows around it.
    """

    def __init__(
        self, codes: torch.Tensor, *, steps: int = STEPS, dtype: torch.dtype = torch.float64
    ) -> None:
        """`codes` [V, C].

        With other `steps` than STEPS it is another map than NAME. With float32 it is several times
        faster, and small numbers of rows are solved in small blocks. So it decides near ties
        otherwise: for where a token need not be the named map's.
        """
        self.codes, self.dtype = codes.detach().to(dtype), dtype
        self.vocab_size, self.width = self.codes.shape
        self._rows = TILE * max(1, BLOCKS[dtype] // self.vocab_size // TILE)
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
        logs = self._logs(probs)
        if noise.shape != (len(probs), self.width):
            wanted = (len(probs), self.width)
            raise ValueError(f"noise has shape {tuple(noise.shape)}, not {wanted}")
        return self._in_blocks(self._tokens, logs, noise.to(self.dtype))

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
            [R, C] in the map's dtype.
        Raises:
            ValueError: as for a call, or a token has probability 0.
        """
        logs = self._logs(probs)
        if not bool((probs.gather(1, tokens[:, None]) > 0).all()):
            raise ValueError("a token has probability 0: no noise leads to it")
        x = (1 - LAST) * self.codes[tokens] + LAST * start.to(self.dtype)
        return self._in_blocks(lambda x, logs: self._solve(x, logs, self._times[::-1]), logs, x)

    def _logs(self, probs: torch.Tensor) -> torch.Tensor:
        """[R, V] log-probabilities, checked."""
        if probs.ndim != 2 or probs.shape[1] != self.vocab_size:
            told = f"(rows, {self.vocab_size})"
            raise ValueError(f"probabilities have shape {tuple(probs.shape)}, not {told}")
        if not bool((probs > 0).any(-1).all()):
            raise ValueError("a row has no probability above 0")
        return probs.to(self.dtype).log()

    def _in_blocks(
        self,
        solve: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        logs: torch.Tensor,
        x: torch.Tensor,
    ) -> torch.Tensor:
        """`solve(x [B, C], logs [B, V])` for blocks of equal size; the last one is padded."""
        rows, parts = self._rows, []
        if self.dtype == torch.float32:
            rows = min(rows, TILE * max(1, -(-len(x) // TILE)))
        for first in range(0, max(1, len(x)), rows):
            some, law = x[first : first + rows], logs[first : first + rows]
            lack = rows - len(some)
            if lack:
                some = torch.cat([some, some.new_zeros(lack, self.width)])
                law = torch.cat([law, law.new_zeros(lack, self.vocab_size)])
            parts.append(solve(some, law)[: rows - lack])
        return torch.cat(parts)

    def _tokens(self, x: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
        """[B] the codes nearest to where the flow ends."""
        mean = self._mean(self._solve(x, logs, self._times), logs, LAST)  # x - t * velocity
        nearness = mean @ self.codes.T - self._half
        return nearness.masked_fill_(logs == -torch.inf, -torch.inf).argmax(-1)

    def _solve(self, x: torch.Tensor, logs: torch.Tensor, times: list[float]) -> torch.Tensor:
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
        return scores.softmax(-1) @ self.codes

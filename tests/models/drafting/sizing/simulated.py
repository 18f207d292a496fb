"""A simulated machine and text, to compare who chooses the sizes of drafts: no model, no clock.

Costs are in units of a plain round of one request. The curves follow what passes of the demo pair
cost on CPUs with AVX2, with AVX-512 and with AMX, and on a GPU, where a pass costs its launches.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from models.drafting.draft import Shape
from models.drafting.sizing.sizing import Sizing


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a round costs: `score` is of the target's pass over so many nodes.

    `level` and `guess` are of a draft's level and each of its nodes, `read` of the draft model's
    reading of a prompt, `latency` of a draft that comes from elsewhere.
    """

    score: Callable[[int], float]
    level: float = 0.0
    guess: float = 0.0
    read: float = 0.0
    latency: float = 0.0
    rest: float = 0.06

    def cost(self, shape: Shape, nodes: int, drafting: int, unread: float) -> float:
        """Of a round: `drafting` requests draft, of whose prompts `unread` are new to the draft."""
        seconds = self.rest + self.score(nodes) + self.read * unread
        if drafting:
            each = self.level + self.guess * shape.width * drafting
            seconds += self.latency + shape.depth * each
        return seconds


def flat(free: int, slope: float, rise: float) -> Callable[[int], float]:
    """A pass that rises slowly up to `free` nodes and by `rise` a node beyond, in groups of 6."""
    return lambda n: 1 + slope * n + rise * max(0, 6 * -(-n // 6) - free)


CURVES = {
    "avx2": flat(6, 0.02, 0.15),
    "avx512": flat(12, 0.015, 0.05),
    "amx": flat(30, 0.012, 0.015),
    "gpu": flat(600, 0.001, 0.0),
}
MACHINES = {
    "avx2": Machine(score=CURVES["avx2"], level=0.06, guess=0.01, read=1.0),
    "avx512": Machine(score=CURVES["avx512"], level=0.05, guess=0.005, read=0.5),
    "amx": Machine(score=CURVES["amx"], level=0.08, guess=0.004, read=0.3),
    "gpu": Machine(score=CURVES["gpu"], level=0.2, read=0.2),
    "remote": Machine(score=CURVES["gpu"], level=0.02, latency=0.3),
}


@dataclass(kw_only=True)
class Running:
    """A request: tokens left to write, and what its text is like."""

    rate: float
    left: int
    unread: float = 1.0  # share of a prompt that the draft has not read
    run: int = 0  # tokens that the text goes on as a copy
    matched: int = 0  # tokens that it has been one


class Model:
    """A draft model: each level of a chain is right with the request's rate, a tree's more often.

    Fitted to the demo pair: 0.74 a level as a chain; 0.86, 0.79, 0.68 as a tree of 4x2, 5 nodes;
    0.95, 0.92, 0.83, 0.81, 0.71 as 6x8, 23 nodes.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def __call__(self, request: Running, shape: Shape) -> tuple[int, int]:
        """Levels given and levels right."""
        depth = min(shape.depth, request.left - 1)
        for level in range(depth):
            worth = 1.0
            if shape.width > 1:
                worth = 1.1 + 0.45 * np.log2(shape.fan) * 1.5 ** (1 - level)
            if self._rng.random() < (1 - request.rate) ** worth:
                return depth, level
        return depth, depth


class Lookup(Model):
    """In new text no guess or a wrong one; `rate` is how often a copy of some 40 tokens begins."""

    def __call__(self, request: Running, shape: Shape) -> tuple[int, int]:
        depth = min(shape.depth, request.left - 1, 2 * request.matched + 1)
        if request.run <= 0:
            request.matched = 0
            if self._rng.random() < request.rate:
                request.run = int(self._rng.geometric(1 / 40))
            return min(depth, int(self._rng.random() < 0.7)), 0
        right = min(depth, request.run)
        request.run -= right + 1
        request.matched += right + 1
        return depth, right


@dataclass(kw_only=True)
class Job:
    """Requests of `length` tokens, `rows` at once, until `tokens` are written.

    `rates` are the text's, part by part of the job. Rounds differ by `noise`; one in fifty is held
    up; slow moments of a hundred rounds or so take `slow` times as long.
    """

    machine: Machine
    rates: tuple[float, ...]
    guesses: type[Model] = Model
    rows: int = 1
    length: int = 64
    tokens: int = 4000
    noise: float = 0.08
    slow: float = 1.6
    plans: list[Shape] = field(default_factory=list)

    def per_token(self, sizing: Sizing, *, seed: int) -> float:
        """What a token costs; the machine and the text are the same whoever chooses the sizes."""
        clock, text = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
        guesses, total, written, pace = self.guesses(text), 0.0, 0, 1.0
        running = [self._next(text, 0) for _ in range(self.rows)]
        for b, request in enumerate(running):  # they do not end together
            request.left = max(2, self.length * (b + 1) // self.rows)
        self.plans = []
        while written < self.tokens:
            if clock.random() < 0.01:
                pace = self.slow if clock.random() < 0.4 else 1.0
            shape, drafting = sizing.plan(self.rows)
            self.plans.append(shape)
            nodes, unread, told = self.rows, 0.0, []
            for b, request in enumerate(running):
                asks = b in drafting
                given, right = guesses(request, shape if asks else Shape(depth=0))
                if asks:
                    unread, request.unread = unread + min(request.unread, 1), 0.0
                    nodes += shape.budget if given and shape.width > 1 else given
                    told.append((given, right, request.left <= right + 1))
                request.unread += 0.01 * (right + 1)
                request.left -= right + 1
                written += right + 1
                if request.left <= 0:
                    running[b] = self._next(text, written)
            cost = self.machine.cost(shape, nodes, len(drafting), unread)
            cost *= pace * float(np.exp(self.noise * clock.standard_normal()))
            cost += float(clock.exponential(2.0)) * (clock.random() < 0.02)
            for given, right, ended in told:
                sizing.observe(given, right, ended=ended)
            sizing.observe_round(1e-3 * cost)
            total += cost
        return total / written

    def _next(self, text: np.random.Generator, written: int) -> Running:
        rate = self.rates[min(written * len(self.rates) // self.tokens, len(self.rates) - 1)]
        own = float(np.clip(rate + 0.06 * text.standard_normal(), 0, 0.98))
        return Running(rate=own if self.guesses is Model and rate else rate, left=self.length)

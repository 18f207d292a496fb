"""Schedules: which output positions the next pass decides. For the nodes that score these positions
see models/schedules/feed.py.

Letters: n positions of one pass.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np

from models.batch import Ints
from models.requests.canvas import Canvas


@dataclass(frozen=True, slots=True)
class Plan:
    """The `positions` [n] that the next pass decides: distinct and undecided, prompt not counted.

    Each token is sampled from its own distribution, given the tokens decided before the pass.
    """

    positions: Ints


class Schedule(Protocol):
    """An order of the output positions, in groups. A request's plans partition its positions."""

    name: str
    in_order: bool  # one by one, from the first on: drafting is possible, `next` is not called
    sample_dependent: bool  # whether `next` uses sampled values, which changes the distribution
    num_positions: int | None  # None: as many as the request's max_tokens

    def next(self, canvas: Canvas) -> Plan:
        """The positions to decide next; the request has undecided positions.

        May use the prompt, the seed (with models/sampling/noise.py) and the tokens decided so far.
        """


class Raster:
    """One position after the other, in output order."""

    name, in_order, sample_dependent = "raster", True, False
    num_positions: int | None = None

    def next(self, canvas: Canvas) -> Plan:
        """The first undecided position."""
        return Plan(canvas.undecided[:1])


class Scales:
    """Square maps one after the other, each decided in one pass."""

    name, in_order, sample_dependent = "scales", False, False

    def __init__(self, sides: Several[int]) -> None:
        self.sides = tuple(sides)
        self.ends = tuple(accumulate(side**2 for side in self.sides))  # positions up to each map
        self.num_positions: int | None = self.ends[-1]

    def scale_of(self, canvas: Canvas) -> int:
        """Index of the map to decide next."""
        return self.ends.index(canvas.num_generated) + 1 if canvas.num_generated else 0

    def next(self, canvas: Canvas) -> Plan:
        """The next map, row by row."""
        return Plan(np.arange(canvas.num_generated, self.ends[self.scale_of(canvas)]))


RASTER = Raster()

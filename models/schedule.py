"""Which output positions the next pass decides together. What a model must be fed to decide them
is its own affair: see models/feed.py.

Letters: n positions of one pass.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np

from models.batch import Ints
from models.canvas import Canvas


@dataclass(frozen=True, slots=True)
class Plan:
    """The next pass decides `positions` [n], distinct and undecided, counted without the prompt.

    Each is drawn from its own distribution, given what was decided before the pass.
    """

    positions: Ints


class Schedule(Protocol):
    """An order of the output positions, in groups; all plans of a request partition them."""

    name: str
    in_order: bool  # one by one from the first on: tokens can be guessed ahead, `next` is not asked
    sample_dependent: bool  # whether `next` looks at sampled values; then the law is another one
    num_positions: int | None  # None: as many as a request asks for

    def next(self, canvas: Canvas) -> Plan:
        """What to decide next of a request that has undecided positions.

        May use its prompt, its seed (by models/noise.py) and what was decided so far.
        """


class Raster:
    """One position after the other."""

    name, in_order, sample_dependent = "raster", True, False
    num_positions: int | None = None

    def next(self, canvas: Canvas) -> Plan:
        """The first that is undecided."""
        return Plan(canvas.undecided[:1])


class Scales:
    """Square maps one after the other, each decided in one pass."""

    name, in_order, sample_dependent = "scales", False, False

    def __init__(self, sides: Several[int]) -> None:
        self.sides = tuple(sides)
        self.ends = tuple(accumulate(side**2 for side in self.sides))  # positions up to each map
        self.num_positions: int | None = self.ends[-1]

    def scale_of(self, canvas: Canvas) -> int:
        """The map that is decided next."""
        return self.ends.index(canvas.num_generated) + 1 if canvas.num_generated else 0

    def next(self, canvas: Canvas) -> Plan:
        """The next map, row by row."""
        return Plan(np.arange(canvas.num_generated, self.ends[self.scale_of(canvas)]))


RASTER = Raster()

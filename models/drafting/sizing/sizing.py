"""Who chooses how much to draft: the user, once (FixedSize), or a Controller, every round."""

from typing import Protocol

from models.drafting.draft import Shape


class Sizing(Protocol):
    """Plans each round's drafts and learns from what came of them."""

    def plan(self, rows: int) -> tuple[Shape, list[int]]:
        """The shape of this round of `rows` requests, and which of them (indices) draft."""

    def observe(self, given: int, right: int, *, ended: bool) -> None:
        """One request's draft: `given` levels came, maybe none, and the first `right` were right.

        `ended`: the request has; it had no room for more levels.
        """

    def observe_round(self, seconds: float) -> None:
        """The whole round took so long, drafting, waiting and bookkeeping included."""


class FixedSize:
    """The user's own choice of size, every round."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def plan(self, rows: int) -> tuple[Shape, list[int]]:
        """All requests draft, unless the shape is nothing."""
        return self._shape, list(range(rows)) if self._shape.depth else []

    def observe(self, given: int, right: int, *, ended: bool) -> None:
        """Nothing to learn."""

    def observe_round(self, seconds: float) -> None:
        """Nothing to learn."""

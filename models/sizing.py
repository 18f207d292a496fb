"""Who chooses how much to draft: the user, once (FixedSize), or a Controller, every round."""

from collections.abc import Sequence as Several
from typing import Protocol

from models.draft import Shape
from models.sequence import Sequence


class Sizing(Protocol):
    """Plans each round's draft and learns from what came of it."""

    def plan(self, sequences: Several[Sequence]) -> tuple[Shape, list[int]]: ...
    def observe(self, sequence: Sequence, shape: Shape, depth: int, accepted: int) -> None: ...
    def observe_round(
        self, shape: Shape, rows: int, nodes: int, tokens: int, seconds: float
    ) -> None: ...
    def forget(self, request_id: str) -> None: ...


class FixedSize:
    """The user's own choice of size, every round."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def plan(self, sequences: Several[Sequence]) -> tuple[Shape, list[int]]:
        """The shape of this round and which sequences (indices) draft."""
        return self._shape, list(range(len(sequences))) if self._shape.depth else []

    def observe(self, sequence: Sequence, shape: Shape, depth: int, accepted: int) -> None:
        """Nothing to learn."""

    def observe_round(
        self, shape: Shape, rows: int, nodes: int, tokens: int, seconds: float
    ) -> None:
        """Nothing to learn."""

    def forget(self, request_id: str) -> None:
        """Nothing to forget."""

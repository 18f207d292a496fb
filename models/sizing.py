"""What chooses how much to draft; models/controller.py has the two that do."""

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

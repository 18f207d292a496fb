"""What a drafter of a case is made from."""

from dataclasses import dataclass

import numpy as np

from models.drafting.draft import Shape
from models.targets.target import Target


@dataclass
class Making:
    """What a drafter may be made from."""

    rng: np.random.Generator
    target: Target
    known: dict[str, tuple[int, ...]]
    rows: int
    max_length: int
    shape: Shape

    @property
    def capacity(self) -> int:
        return self.max_length + 80

    @property
    def entries(self) -> int | None:
        """Of a drafter's own cache; too few for all at times."""
        least = self.max_length + 80
        return None if self.rng.random() < 0.5 else least + int(self.rng.integers(0, 150))

"""A set of samples: where rows can be taken from, and rows that were taken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Images = NDArray[np.float32]  # [N, channels, height, width] in 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Rows in memory; what the set does not have is None."""

    url: str
    num_rows: int
    images: Images | None = None
    labels: tuple[str, ...] | None = None
    tokens: tuple[Ints, ...] | None = None
    prompts: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows that can be taken, by their numbers; images are only decoded then.

    `num_dropped` further rows hold an error instead of a sample.
    """

    url: str
    num_rows: int
    take: Callable[[Ints], Samples]
    labels: tuple[str, ...] | None = None
    num_dropped: int = 0


def label_text(value: object) -> str:
    """A label as all kinds of files spell it: 3, 3.0 and "3" are the same."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def label_numbers(*sets: Sequence[str] | None) -> list[Ints]:
    """Each set's labels as numbers, the same number for the same label; empty without."""
    numbers: dict[str, int] = {}
    return [
        np.array([numbers.setdefault(label, len(numbers)) for label in labels or ()], np.int64)
        for labels in sets
    ]

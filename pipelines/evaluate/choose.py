"""Which rows of which set are used: as many samples as floor rows, labels in fair shares."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from models.metrics.compare import Design
from models.metrics.resample import proportional_order
from pipelines.errors import InvalidInput
from pipelines.evaluate.samples import Ints, Samples, Source, label_numbers

MIN_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """The rows of an evaluation; as many samples as floor rows."""

    samples: Samples
    floor: Samples
    reference: Samples

    def all(self) -> tuple[Samples, Samples, Samples]:
        """In the order in which figures take them: the pool, then the reference."""
        return self.samples, self.floor, self.reference


def choose(
    samples: Source, reference: Source, floor: Source | None, *, max_rows: int, seed: int
) -> Sets:
    """Draw the rows; without a floor of its own, part of the reference becomes the floor.

    Where samples and reference were made for the same labels, floor and reference share them out
    fairly, too; where labels fell at random, they stay random.

    Raises:
        InvalidInput: a set has too few rows.
    """
    _require(samples, MIN_ROWS)
    _require(reference, MIN_ROWS if floor else 2 * MIN_ROWS, "" if floor else ": half is the floor")
    random = np.random.default_rng(seed)
    first, rest = _order(samples, random), _order(reference, random)
    if floor is None:
        if not _same_shares(samples, reference):
            rest = random.permutation(reference.num_rows)
        count = min(len(first), len(rest) // 2, max_rows)
        second, rest, source = rest[:count], rest[count:], reference
    else:
        _require(floor, MIN_ROWS)
        second, source = _order(floor, random), floor
        count = min(len(first), len(second), max_rows)
    return Sets(
        samples=samples.take(np.sort(first[:count])),
        floor=source.take(np.sort(second[:count])),
        reference=reference.take(np.sort(rest[:max_rows])),
    )


def _require(source: Source, num_rows: int, told: str = "") -> None:
    if source.num_rows < num_rows:
        found = f"{source.url!r} has {source.num_rows} rows"
        raise InvalidInput(f"{found}: {num_rows} or more are needed{told}")


def design_of(sets: Sets) -> Design:
    """Labels are strata where samples and floor were made for the same ones."""
    samples, floor, reference = label_numbers(*(part.labels for part in sets.all()))
    num_reference = sets.reference.num_rows
    if not _same_labels(sets.samples, sets.floor):
        pool = np.zeros(2 * sets.samples.num_rows, dtype=np.int64)
        return Design(pool=pool, reference=np.zeros(num_reference, dtype=np.int64))
    free = np.zeros(num_reference, dtype=np.int64)
    return Design(
        pool=np.concatenate([samples, floor]), reference=reference if len(reference) else free
    )


def _same_labels(a: Samples, b: Samples) -> bool:
    """Whether both have every label as often, but for the rows that drawing may leave over."""
    if a.labels is None or b.labels is None:
        return False
    first, second = Counter(a.labels), Counter(b.labels)
    return all(abs(first[label] - second[label]) <= 2 for label in first | second)


def _same_shares(a: Source, b: Source) -> bool:
    """Whether both have the same share of every label, to a row."""
    if a.labels is None or b.labels is None:
        return False
    first, second, ratio = Counter(a.labels), Counter(b.labels), a.num_rows / b.num_rows
    slack = max(1.0, ratio)
    return all(abs(first[label] - ratio * second[label]) <= slack for label in first | second)


def _order(source: Source, random: np.random.Generator) -> Ints:
    numbers = label_numbers(source.labels)[0]
    strata = numbers if len(numbers) else np.zeros(source.num_rows, dtype=np.int64)
    return proportional_order(strata, random)

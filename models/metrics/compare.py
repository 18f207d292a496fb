"""Compares metrics of samples with those of a noise floor: intervals and p-values.

The floor is a second set from the teacher, as large as the samples. Both are compared with the same
reference. Letters: R subsets, n samples and n floor rows (the pool), m reference rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from models.metrics.catalogue import METRICS, About
from models.metrics.resample import (
    Bools,
    Floats,
    Ints,
    adjusted_p_values,
    interval,
    standardized,
    subsets,
)

# A metric of subsets of the pool (the samples, then the floor) and subsets of the reference:
# (rows [R, 2n], reference [R, m]) -> [R].
Measure = Callable[[Bools, Bools], Floats]
CHUNK = 64  # subsets at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One metric. `score`: samples minus floor, in standard deviations of shuffled differences.

    `p_value` is adjusted for the number of metrics: see `adjusted_p_values`.
    """

    name: str
    value: float
    interval: tuple[float, float]
    floor: float
    floor_interval: tuple[float, float]
    score: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The rows, and the strata within which they are exchanged.

    `pool` [2n]: the strata of the samples and of as many floor rows. `reference` [m]: the strata of
    its rows. If both sets were generated for the same labels, the strata are the labels, so
    shuffling keeps their shares. Otherwise all strata are 0.
    """

    pool: Ints
    reference: Ints

    @property
    def num_samples(self) -> int:
        """n: the number of samples."""
        return len(self.pool) // 2


def compare(
    measures: Mapping[str, Measure],
    design: Design,
    *,
    resamples: int,
    seed: int,
    done: Callable[[str], None] = lambda name: None,
) -> list[Outcome]:
    """Measure all metrics on the same subsets; `done` is called with each name that is ready."""
    subsets_ = _Subsets(design, resamples, seed)
    tables = {}
    for name, measure in measures.items():
        tables[name] = subsets_.measured(measure)
        done(name)
    abouts = [METRICS[name] for name in tables]
    observed = np.array([table.value - table.floor for table in tables.values()])
    permuted = np.stack([table.permuted for table in tables.values()], axis=1)
    one_sided = np.array([about.distance for about in abouts])
    scores, shuffled = standardized(observed, permuted, one_sided)
    p_values = adjusted_p_values(scores, shuffled)
    return [
        _outcome(name, table, about, float(score), float(p_value), design.num_samples)
        for (name, table), about, score, p_value in zip(
            tables.items(), abouts, scores, p_values, strict=True
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A metric's values: of both sets, of subsets of them [R], and after shuffling [R]."""

    value: float
    floor: float
    parts: Floats
    floor_parts: Floats
    permuted: Floats


class _Subsets:
    """The subsets on which every metric is measured."""

    def __init__(self, design: Design, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        n, m = design.num_samples, len(design.reference)
        first = np.arange(2 * n) < n
        samples = subsets(design.pool[:n], n // 2, count, random)
        floor = subsets(design.pool[n:], n // 2, count, random)
        self._sets = np.stack([first, ~first])
        self._whole = np.ones((max(count, 2), m), dtype=np.bool_)
        self._samples = np.concatenate([samples, np.zeros_like(samples)], axis=1)
        self._floor = np.concatenate([np.zeros_like(floor), floor], axis=1)
        self._reference = subsets(design.reference, m // 2, count, random)
        self._permuted = subsets(design.pool, n, count, random)

    def measured(self, measure: Measure) -> _Table:
        value, floor = measure(self._sets, self._whole[:2])
        whole = self._whole[: len(self._permuted)]
        return _Table(
            value=float(value),
            floor=float(floor),
            parts=_chunked(measure, self._samples, self._reference),
            floor_parts=_chunked(measure, self._floor, self._reference),
            permuted=_chunked(measure, self._permuted, whole)
            - _chunked(measure, ~self._permuted, whole),
        )


def _chunked(measure: Measure, rows: Bools, reference: Bools) -> Floats:
    starts = range(0, len(rows), CHUNK)
    return np.concatenate([measure(rows[i : i + CHUNK], reference[i : i + CHUNK]) for i in starts])


def _outcome(
    name: str, table: _Table, about: About, score: float, p_value: float, num_rows: int
) -> Outcome:
    share = (num_rows // 2) / num_rows
    return Outcome(
        name=name,
        value=table.value,
        interval=interval(table.value, table.parts, share=share, bounds=about.bounds),
        floor=table.floor,
        floor_interval=interval(table.floor, table.floor_parts, share=share, bounds=about.bounds),
        score=score,
        p_value=p_value,
    )

"""Which rows an evaluation uses: fair shares where labels were set, chance where they fell."""

from collections import Counter

import numpy as np
import pytest

from pipelines.errors import InvalidInput
from pipelines.evaluate.choose import choose, design_of
from pipelines.evaluate.samples import Ints, Samples, Source, label_text


def source(labels: list[str] | None, num_rows: int | None = None) -> Source:
    """Rows whose one token is their number."""
    count = num_rows if labels is None else len(labels)
    assert count is not None

    def take(rows: Ints) -> Samples:
        return Samples(
            url="somewhere",
            num_rows=len(rows),
            labels=None if labels is None else tuple(labels[i] for i in rows),
            tokens=tuple(np.array([i]) for i in rows),
        )

    return Source(
        url="somewhere",
        num_rows=count,
        take=take,
        labels=None if labels is None else tuple(labels),
    )


def numbers(samples: Samples) -> list[int]:
    assert samples.tokens is not None
    return [int(row[0]) for row in samples.tokens]


def test_floor_and_reference_share_no_row_and_are_in_order() -> None:
    sets = choose(source(None, 70), source(None, 300), None, max_rows=1000, seed=0)
    floor, reference = numbers(sets.floor), numbers(sets.reference)
    assert (len(floor), len(reference)) == (70, 230)
    assert sorted(floor + reference) == list(range(300))
    assert floor == sorted(floor)
    assert set(design_of(sets).pool.tolist()) == {0}


def test_labels_that_were_set_are_strata_and_shared_out_fairly() -> None:
    samples, reference = source(["0", "1"] * 50), source([*["1"] * 150, *["0"] * 150])
    sets = choose(samples, reference, None, max_rows=1000, seed=0)
    for part in sets.all():
        counts = Counter(part.labels)
        assert abs(counts["0"] - counts["1"]) <= 2
    design = design_of(sets)
    assert len(set(design.pool.tolist())) == 2
    assert design.num_samples == 100
    assert len(design.reference) == 200


def test_labels_that_fell_at_random_are_no_strata() -> None:
    random = np.random.default_rng(1)
    samples = source([str(label) for label in random.integers(0, 3, 200)])
    reference = source([str(label) for label in random.integers(0, 3, 600)])
    uneven, unfair = 0, 0
    for seed in range(20):
        sets = choose(samples, reference, None, max_rows=1000, seed=seed)
        expected = Counter(reference.labels)["0"] / 3
        unfair += abs(Counter(sets.floor.labels)["0"] - expected) > 2
        uneven += set(design_of(sets).pool.tolist()) == {0}
    assert unfair > 5
    assert uneven > 15


def test_no_more_rows_than_are_allowed() -> None:
    sets = choose(source(["a"] * 100), source(["a"] * 90), source(["a"] * 70), max_rows=40, seed=3)
    assert [part.num_rows for part in sets.all()] == [40, 40, 40]
    sets = choose(source(["a"] * 30), source(["a"] * 90), source(["a"] * 70), max_rows=40, seed=3)
    assert [part.num_rows for part in sets.all()] == [30, 30, 40]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((19, 90, None), "has 19 rows: 20 or more are needed"),
        ((90, 39, None), "has 39 rows: 40 or more are needed: half is the floor"),
        ((90, 19, 90), "has 19 rows: 20 or more are needed"),
        ((90, 90, 19), "has 19 rows: 20 or more are needed"),
    ],
)
def test_too_few_rows_are_refused(sizes: tuple[int, int, int | None], message: str) -> None:
    samples, reference = source(None, sizes[0]), source(None, sizes[1])
    floor = None if sizes[2] is None else source(None, sizes[2])
    with pytest.raises(InvalidInput, match=message):
        choose(samples, reference, floor, max_rows=1000, seed=0)


def test_labels_are_spelt_one_way() -> None:
    assert [label_text(value) for value in (3, 3.0, "3", 2.5, "cat")] == [
        "3",
        "3",
        "3",
        "2.5",
        "cat",
    ]

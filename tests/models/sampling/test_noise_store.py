"""Noise drawn ahead: the same numbers as direct draws, whatever was asked before."""

import numpy as np
import pytest
import torch

from models.sampling.noise import NoiseStore
from tests.models.drawing import drawn, numbers_of

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("arithmetic")
LARGE, SMALL = 1 << 14, 1 << 9  # windows of 4 positions (so: none kept) and of 128


def check(store, seeds, positions):
    numbers = numbers_of(seeds, positions)
    assert torch.equal(store.rows(numbers), drawn(numbers, store.vocab_size))


@pytest.mark.parametrize("vocab_size", [SMALL, LARGE])
def test_equals_direct_draws_in_any_order(vocab_size):
    store, rng = NoiseStore(vocab_size, CPU), np.random.default_rng(0)
    for _ in range(150):
        count = int(rng.integers(1, 9))
        seeds = rng.integers(0, 12, count)
        check(store, seeds, rng.integers(0, 40, count) + 100 * (seeds % 3))


def test_positions_that_only_grow():
    store, rng = NoiseStore(SMALL, CPU), np.random.default_rng(1)
    at = rng.integers(0, 50, 6)
    for _ in range(100):
        check(store, np.arange(6), at)
        at = at + rng.integers(0, 9, 6)


def test_going_back_before_the_window():
    store = NoiseStore(SMALL, CPU)
    for position in (500, 499, 627, 628, 0, 500):
        check(store, [3], [position])


def test_a_span_wider_than_a_window():
    store = NoiseStore(SMALL, CPU)
    check(store, [3, 3, 4], [0, 5000, 7])
    check(store, [3, 4], [5000, 8])


def test_one_seed_at_several_places():
    store = NoiseStore(SMALL, CPU)
    check(store, [3, 3, 3], [10, 10, 137])
    check(store, [3, 3], [10, 138])


@pytest.mark.parametrize("vocab_size", [SMALL, LARGE])
def test_forgetting_frees_and_changes_nothing(vocab_size):
    store = NoiseStore(vocab_size, CPU)
    for seed in range(200):
        check(store, [seed, seed + 1], [seed, 3])
        store.forget(seed)
    assert len(store._slots) <= 1
    assert len(store._begins) <= 8  # slots were used again
    store.forget(12345)  # unknown: nothing to do
    check(store, [5], [0])


def test_what_was_given_out_stays_as_it_was():
    store = NoiseStore(SMALL, CPU)
    rows = store.rows(numbers_of([1, 2], [0, 0]))
    kept = rows.clone()
    check(store, [1, 2, 3], [400, 400, 400])
    assert torch.equal(rows, kept)


def test_memory_is_bounded_per_request():
    store = NoiseStore(SMALL, CPU)
    check(store, np.arange(8), np.arange(8))
    assert store._table.numel() <= 8 * NoiseStore.NUMBERS
    large = NoiseStore(128_000, CPU)
    check(large, [1], [2])
    assert large._table.numel() == 0

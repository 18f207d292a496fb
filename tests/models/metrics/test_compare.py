"""Verdicts: sets of one law stay within the floor, biased ones do not, whatever the bias."""

import numpy as np
import pytest

from models.metrics.compare import Design, compare
from models.metrics.images.frechet import FrechetDistance
from models.metrics.images.kernel import KernelDistance
from models.metrics.images.neighbours import Distances
from models.metrics.rowwise import ClassEntropy, Mean
from models.metrics.tables import PositionEntropy, TableDistance, bigrams, positions

V, L = 6, 8


def unlabelled(n, m):
    return Design(pool=np.zeros(2 * n, dtype=np.int64), reference=np.zeros(m, dtype=np.int64))


def of_features(samples, floor, reference, **options):
    pool = np.concatenate([samples, floor])
    distances = Distances(pool, reference, k=3)
    measures = {
        "fd-clf": FrechetDistance(pool, reference),
        "kd-clf": KernelDistance(pool, reference),
        "precision": distances.precision,
        "recall": distances.recall,
    }
    found = compare(
        measures, unlabelled(len(samples), len(reference)), resamples=100, seed=0, **options
    )
    return {outcome.name: outcome for outcome in found}


def of_tokens(samples, floor, reference):
    every = [*samples, *floor, *reference]
    sizes = {"num_pool": 2 * len(samples), "num_reference": len(reference)}
    measures = {
        "token-tv": TableDistance(*positions(every), **sizes),
        "bigram-tv": TableDistance(*bigrams(every), **sizes),
        "token-entropy": PositionEntropy([*samples, *floor]),
    }
    design = unlabelled(len(samples), len(reference))
    return {o.name: o for o in compare(measures, design, resamples=100, seed=0)}


def chains(seed, count, *, sharpness=1.0, reverse=False):
    """Rows of a Markov chain, always the same one."""
    random, law = np.random.default_rng(seed), np.random.default_rng(99)
    weights = law.random((V, V)) ** (3 * sharpness)
    steps = (weights / weights.sum(1, keepdims=True)).cumsum(1)
    rows = np.zeros((count, L), dtype=np.int64)
    for i in range(L):
        before = rows[:, i - 1] if i else np.zeros(count, dtype=np.int64)
        rows[:, i] = (random.random((count, 1)) > steps[before, :-1]).sum(1)
    return list(rows[:, ::-1].copy() if reverse else rows)


def gaussian(seed, count):
    return np.random.default_rng(seed).standard_normal((count, 4))


def test_one_law_stays_within_the_floor():
    found = of_features(gaussian(0, 200), gaussian(1, 200), gaussian(2, 300))
    for outcome in found.values():
        assert outcome.p_value > 0.1
        assert outcome.interval[0] <= outcome.value <= outcome.interval[1]
    assert found["fd-clf"].value == pytest.approx(found["fd-clf"].floor, abs=0.1)


def test_a_shift_is_caught():
    found = of_features(gaussian(0, 200) + 0.4, gaussian(1, 200), gaussian(2, 300))
    assert found["fd-clf"].p_value < 0.02
    assert found["kd-clf"].p_value < 0.02
    assert found["fd-clf"].interval[0] > found["fd-clf"].floor


def test_lost_diversity_is_caught_by_recall_and_raises_precision():
    found = of_features(gaussian(0, 200) * 0.4, gaussian(1, 200), gaussian(2, 300))
    assert found["recall"].p_value < 0.02
    assert found["recall"].value < found["recall"].floor
    assert found["precision"].value > found["precision"].floor


def test_closer_than_the_floor_is_no_fault():
    found = of_features(gaussian(2, 300)[:200], gaussian(1, 200), gaussian(2, 300))
    assert found["fd-clf"].value < found["fd-clf"].floor
    assert found["fd-clf"].p_value > 0.5


def test_tokens_of_one_law_stay_within_the_floor():
    found = of_tokens(chains(0, 300), chains(1, 300), chains(2, 300))
    assert min(outcome.p_value for outcome in found.values()) > 0.1


def test_a_colder_chain_is_caught_by_pairs_and_entropy():
    found = of_tokens(chains(0, 300, sharpness=1.4), chains(1, 300), chains(2, 300))
    assert found["token-entropy"].p_value < 0.02
    assert found["token-entropy"].value < found["token-entropy"].floor
    assert found["bigram-tv"].p_value < 0.02


def test_another_order_is_caught_by_pairs():
    """Reversed rows of an exchange-free chain hold the same tokens, in other pairs."""
    found = of_tokens(chains(0, 300, reverse=True), chains(1, 300), chains(2, 300))
    assert found["bigram-tv"].p_value < 0.02


def test_false_alarms_are_as_rare_as_p_says():
    """Some figure of several beyond the floor at 10 %, in about a tenth of 200 comparisons."""
    alarms = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        values, classes = random.standard_normal((2, 60)), random.integers(0, 3, 60)
        measures = {
            "nll": Mean(values[0]),
            "nll-excess": Mean(values[1] ** 2),
            "accuracy": Mean(values[0] > 0),
            "label-entropy": ClassEntropy(classes),
        }
        found = compare(measures, unlabelled(30, 20), resamples=99, seed=seed)
        alarms += min(outcome.p_value for outcome in found) <= 0.1
    assert 0.04 <= alarms / 200 <= 0.17


def test_labels_that_were_set_are_not_mixed_up():
    """Figures that labels decide have little scatter when labels are strata."""
    labels = np.tile(np.arange(4), 50)
    random = np.random.default_rng(0)
    values = np.concatenate([10 * labels + random.standard_normal(200) for _ in range(2)])
    free = compare({"nll": Mean(values)}, unlabelled(200, 20), resamples=100, seed=0)[0]
    design = Design(pool=np.tile(labels, 2), reference=np.zeros(20, dtype=np.int64))
    held = compare({"nll": Mean(values)}, design, resamples=100, seed=0)[0]
    assert np.diff(held.interval) < np.diff(free.interval) / 5
    shifted = values + np.repeat([0.5, 0.0], 200)
    assert compare({"nll": Mean(shifted)}, design, resamples=100, seed=0)[0].p_value < 0.02
    assert (
        compare({"nll": Mean(shifted)}, unlabelled(200, 20), resamples=100, seed=0)[0].p_value > 0.1
    )


def test_the_same_seed_gives_the_same_figures_and_tells_of_each():
    told: list[str] = []
    sets = gaussian(0, 60), gaussian(1, 60), gaussian(2, 60)
    assert of_features(*sets, done=told.append) == of_features(*sets)
    assert told == ["fd-clf", "kd-clf", "precision", "recall"]

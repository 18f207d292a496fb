"""Random numbers: the meaning of a seed is pinned, moments are right, keys do not share numbers."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from models.compute.x86.kernels import compiled
from models.sampling.noise import Purpose, gumbel, normals, row_keys, uniform
from tests.models.drawing import drawn, numbers_of

CPU = torch.device("cpu")
EULER_GAMMA = 0.5772156649


def keys_of(seeds=7, positions=9, purpose=Purpose.TOKEN, rounds=0):
    seeds, positions = np.broadcast_arrays(np.atleast_1d(seeds), np.atleast_1d(positions))
    return row_keys(seeds.astype(np.int64), positions.astype(np.int64), purpose, rounds)


def draws(keys, vocab_size=64):
    return gumbel(keys, vocab_size, CPU).numpy().astype(np.float64)


# Known answers. A change here changes what every seed means: old outputs cannot be had again.

PINNED_KEYS = {
    (0, 0): 0x48218226FF3CD4BF,
    (1, 5): 0xF1C71C23C0534D73,
    (2**63 - 1, 1000): 0x1FF866AABA783D60,
    (7, 2**31): 0x10E637CA37300553,
}
PINNED_PURPOSES = {
    Purpose.TOKEN: 0xD207EE781EF4FCC8,
    Purpose.DRAFT: 0x6DA27DCF9B050466,
    Purpose.ACCEPT: 0x9F5B7DF4A05F74C8,
    Purpose.RESIDUAL: 0x4AF87DEC81FF8190,
    Purpose.START: 0xAF434E47FBAEA1D6,
    Purpose.COUPLE: 0xDA282BD2D719B575,
    Purpose.POSITION: 0x656FD752ED1BA804,
    Purpose.FLOW: 0x7DF2F93DE6209731,
    Purpose.TRAINING: 0xFD59F52131F80691,
}


def test_keys_are_pinned():
    seeds, positions = zip(*PINNED_KEYS, strict=True)
    assert keys_of(seeds, positions).tolist() == list(PINNED_KEYS.values())
    made = {p: int(keys_of(7, 9, p, 3)[0]) for p in Purpose}
    assert made == PINNED_PURPOSES


def test_uniform_is_pinned():
    found = uniform(np.array(list(PINNED_KEYS.values()), dtype=np.uint64))
    expected = [0.15639099857253513, 0.47433869469261236, 0.8305801601878576, 0.684718654391303]
    assert found.tolist() == expected


def test_normals_are_pinned():
    found = normals(np.array([0x48218226FF3CD4BF], dtype=np.uint64), 4)
    assert found.dtype == torch.float64
    expected = [-0.729442716825549, -0.3691563696763305, -2.0935536205180405, -0.7028705967217604]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_normals_are_normal_and_independent():
    found = normals(row_keys(np.arange(5000), np.full(5000, 3), Purpose.FLOW), 4).numpy()
    assert all(kstest(found[:, c], "norm").pvalue > 1e-3 for c in range(4))
    assert np.abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.06


def test_gumbel_is_pinned():
    found = gumbel(keys_of(1, 5), 200_000, CPU)
    assert found.dtype == torch.float32
    expected = [1.0240864753723145, -0.57049161195755, 2.02681303024292, 1.4766987562179565]
    np.testing.assert_allclose(found[0, [0, 1, 2, 199_999]], expected, rtol=0, atol=1e-6)


def test_a_row_is_the_same_alone_and_among_others_and_for_any_vocabulary():
    keys = keys_of(np.arange(20), 3)
    together = gumbel(keys, 1000, CPU)
    for row in (0, 7, 19):
        assert torch.equal(gumbel(keys[row : row + 1], 1000, CPU)[0], together[row])
    assert torch.equal(gumbel(keys, 10, CPU), together[:, :10])


@pytest.mark.skipif(not compiled(), reason="no compiled kernels here")
@pytest.mark.parametrize("purpose", [Purpose.TOKEN, Purpose.RESIDUAL])
def test_compiled_noise_is_the_same_but_for_the_last_places(purpose):
    """The integers are equal, the logarithms nearly: both as near to the exact ones."""
    rng = np.random.default_rng(0)
    seeds, positions = rng.integers(0, 2**62, 300), rng.integers(0, 2**31, 300)
    rounds = None if purpose is Purpose.TOKEN else rng.integers(0, 2**31, 300)
    numbers = numbers_of(seeds, positions, purpose, rounds)
    found = drawn(numbers, 2001)
    keys = row_keys(seeds, positions, purpose, 0 if rounds is None else rounds)
    torch.testing.assert_close(found, gumbel(keys, 2001, CPU), rtol=1e-6, atol=1e-6)
    one = slice(7, 8)
    rounds = None if rounds is None else rounds[one]
    alone = numbers_of(seeds[one], positions[one], purpose, rounds)
    assert torch.equal(drawn(alone, 10)[0], found[7, :10])


@pytest.mark.skipif(not compiled(), reason="no compiled kernels here")
def test_compiled_noise_is_pinned():
    found = drawn(numbers_of([1], [5]), 200_000)
    expected = [1.0240864753723145, -0.57049161195755, 2.02681303024292, 1.4766987562179565]
    np.testing.assert_allclose(found[0, [0, 1, 2, 199_999]], expected, rtol=0, atol=1e-6)


# Law


def test_uniform_is_uniform():
    found = uniform(keys_of(np.arange(100_000), 0))
    assert found.min() >= 0
    assert found.max() < 1
    assert kstest(found, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("by", ["seed", "position", "token"])
def test_gumbel_has_the_gumbel_law(by):
    if by == "token":
        found = draws(keys_of(3, 3), 100_000)[0]
    else:
        ids = np.arange(100_000)
        keys = keys_of(ids, 5) if by == "seed" else keys_of(5, ids)
        found = draws(keys, 3)[:, 1]
    assert kstest(found, "gumbel_r").pvalue > 1e-3
    assert abs(found.mean() - EULER_GAMMA) < 4 * 1.2825 / 100_000**0.5
    assert abs(found.var() - np.pi**2 / 6) < 0.05


def test_a_rare_token_can_win():
    """The upper tail is fine enough for probabilities of 1e-9, and nothing is infinite."""
    found = draws(keys_of(np.arange(16), 0), 2**16)
    assert np.isfinite(found).all()
    assert found.max() > np.log(found.size) - 3
    assert found.max() < 22.3
    tail = (found > np.log(2**14)).sum()  # P = 1 - exp(-2^-14) each: 64 expected
    assert 30 < tail < 110


def test_argmax_draws_from_the_distribution():
    probs = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    noise = draws(keys_of(np.arange(50_000), 11), 5)
    counts = np.bincount((np.log(probs) + noise).argmax(1), minlength=5)
    expected = probs * counts.sum()
    assert chi2.sf(((counts - expected) ** 2 / expected).sum(), 4) > 1e-3


# Independence


NEIGHBOURS = {
    "seed": (lambda i: keys_of(i, 9), lambda i: keys_of(i + 1, 9)),
    "position": (lambda i: keys_of(5, i), lambda i: keys_of(5, i + 1)),
    "seed against position": (lambda i: keys_of(i, 2), lambda i: keys_of(2, i + 3)),
    "purpose": (lambda i: keys_of(i, 9), lambda i: keys_of(i, 9, Purpose.DRAFT)),
    "round": (
        lambda i: keys_of(i, 9, Purpose.RESIDUAL, 1),
        lambda i: keys_of(i, 9, Purpose.RESIDUAL, 2),
    ),
    "high bits of the seed": (lambda i: keys_of(i, 9), lambda i: keys_of(i + 2**62, 9)),
}


def joint_chance(a, b, bins):
    """The chance of a dependence this strong between two columns of small numbers."""
    table = np.zeros((bins, bins))
    np.add.at(table, (a, b), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return chi2.sf(((table - expected) ** 2 / expected).sum(), (bins - 1) ** 2)


@pytest.mark.parametrize("pair", NEIGHBOURS)
def test_neighbouring_keys_give_independent_numbers(pair):
    ids = np.arange(40_000)
    first, second = (keys(ids) for keys in NEIGHBOURS[pair])
    assert (first != second).all()
    a, b = draws(first, 8), draws(second, 8)
    assert abs(np.corrcoef(a[:, 3], b[:, 3])[0, 1]) < 0.02
    assert joint_chance(a.argmax(1), b.argmax(1), 8) > 1e-3
    assert (
        joint_chance((8 * uniform(first)).astype(int), (8 * uniform(second)).astype(int), 8) > 1e-3
    )


def test_tokens_of_a_row_are_independent():
    found = draws(keys_of(np.arange(40_000), 4), 32)
    correlations = np.corrcoef(found.T) - np.eye(32)
    assert abs(correlations).max() < 0.025
    quartile = np.searchsorted(np.quantile(found, [0.25, 0.5, 0.75]), found)
    for a, b in [(0, 1), (1, 2), (0, 16), (30, 31)]:
        assert joint_chance(quartile[:, a], quartile[:, b], 4) > 1e-3


def test_a_row_does_not_share_numbers_with_its_neighbours():
    """Shifted or repeated rows would couple positions; equal values may only be chance."""
    found = gumbel(keys_of(1, np.arange(50)), 2000, CPU)
    values, counts = found.flatten().unique(return_counts=True)
    assert counts.max() <= 3
    assert len(values) > 0.98 * found.numel()


def test_uniform_is_independent_of_the_gumbel_row_of_the_same_key():
    keys = keys_of(np.arange(40_000), 6)
    eighth = (8 * uniform(keys)).astype(int)
    assert joint_chance(eighth, draws(keys, 8).argmax(1), 8) > 1e-3

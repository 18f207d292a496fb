"""Counter-based random numbers: a function of (seed, position, purpose, round, token), nothing else.

The random bits are integer arithmetic and the same on every device; the logarithms that turn them
into Gumbel noise may differ in the last place between devices. Letters: R rows, V vocabulary.
"""

from enum import IntEnum
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

Words = NDArray[np.uint64]
MASK32 = np.uint64(0xFFFFFFFF)


class Purpose(IntEnum):
    """What a random number decides; two purposes never share a number."""

    TOKEN = 0  # the target's own choice: plain decoding and `match`
    DRAFT = 1  # a drafter's choice under `rejection` and `block`
    ACCEPT = 2  # the accept decision of those rules
    RESIDUAL = 3  # their replacement and bonus tokens


def _mix64(x: Words) -> Words:
    """SplitMix64's finaliser (Steele et al. 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_keys(
    seeds: NDArray[np.int64],
    positions: NDArray[np.int64],
    purpose: Purpose,
    rounds: NDArray[np.int64] | int = 0,
) -> Words:
    """One 64-bit key per row.

    Args:
        seeds: [R] requests' seeds, 0 <= seed < 2**63.
        positions: [R] absolute positions in the sequence.
        rounds: [R] or a number: keeps numbers of repeated decisions about one position apart.
    Returns:
        [R] uint64.
    """
    with np.errstate(over="ignore"):
        counter = np.asarray(rounds, dtype=np.int64).astype(np.uint64) << np.uint64(32)
        counter = counter ^ positions.astype(np.uint64) ^ (np.uint64(purpose) << np.uint64(60))
        return _mix64(
            _mix64(seeds.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)) ^ _mix64(counter)
        )


def uniform(keys: Words) -> NDArray[np.float64]:
    """[R] float64 in [0, 1), one number per key."""
    with np.errstate(over="ignore"):
        word = _mix64(keys ^ np.uint64(0xD1B54A32D192ED03))
    out: NDArray[np.float64] = (word >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return out


def _logical_shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned right shift of int32: torch's own copies the sign bit."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _mix32(x: torch.Tensor) -> torch.Tensor:
    """A 32-bit finaliser with low bias (constants: C. Wellons, hash-prospector), in place."""
    x ^= _logical_shift(x, 16)
    x *= 0x7FEB352D
    x ^= _logical_shift(x, 15)
    x *= 0x846CA68B - (1 << 32)
    x ^= _logical_shift(x, 16)
    return x


@cache
def _token_words(vocab_size: int, device: torch.device) -> torch.Tensor:
    """[V] int32: one fixed hash per token, so that per-row work can stay short."""
    tokens = torch.arange(1, vocab_size + 1, dtype=torch.int32, device=device)
    return _mix32(tokens * (0x9E3779B1 - (1 << 32)))


def gumbel(keys: Words, vocab_size: int, device: torch.device) -> torch.Tensor:
    """Standard Gumbel noise for every token of every row.

    Returns:
        [R, V] float32, from 31 random bits a number: its upper end is 21.5, so that a token of
        probability 1e-9 can still win.
    """
    low = (keys & MASK32).astype(np.uint32).view(np.int32)
    high = ((keys >> np.uint64(32)) | np.uint64(1)).astype(np.uint32).view(np.int32)
    key = torch.from_numpy(np.stack([low, high])).to(device)  # [2, R]
    x = _token_words(vocab_size, device) ^ key[0][:, None]  # [R, V]
    x = _mix32(x.mul_(key[1][:, None]))
    # |x + 0.5| keeps full precision near 0, where the winning (small) exponentials come from.
    u = x.float().add_(0.5).abs_().mul_(2.0**-31).clamp_max_(1 - 2.0**-24)
    return u.neg_().log1p_().neg_().log_().neg_()

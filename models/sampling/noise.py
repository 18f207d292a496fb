"""Counter-based random numbers: a function of seed, position, purpose, round and token only.

The random bits come from integer arithmetic and are the same on every device. The logarithms that
turn them into Gumbel noise may differ in the last place between devices.
Letters: R rows, V vocabulary.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from models.batch import Ints
from models.compute.x86 import kernels

Words = NDArray[np.uint64]
MASK32 = np.uint64(0xFFFFFFFF)


class Purpose(IntEnum):
    """What a random number is used for. Two purposes never share a number."""

    TOKEN = 0  # the target's own choice: plain decoding and `match`
    DRAFT = 1  # a drafter's choice under `rejection` and `block`
    ACCEPT = 2  # the accept decision of those rules
    RESIDUAL = 3  # their replacement and bonus tokens
    START = 4  # a random first draft token of a position
    COUPLE = 5  # whether a draft token is kept when its distribution changes
    POSITION = 6  # a draft token whose noise stays the same from round to round
    FLOW = 7  # the Gaussian noise of the flow map
    TRAINING = 8  # random choices about a training sample


def _mix64(x: Words) -> Words:
    """SplitMix64's finaliser (Steele et al. 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_keys(
    seeds: Ints,
    positions: Ints,
    purpose: Purpose,
    rounds: Ints | int = 0,
) -> Words:
    """One 64-bit key per row.

    Args:
        seeds: [R] requests' seeds, 0 <= seed < 2**63.
        positions: [R] absolute positions in the sequence.
        rounds: [R] or one number: separates repeated decisions about the same position.
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


def normals(keys: Words, width: int) -> torch.Tensor:
    """Standard normal numbers, `width` per key, by the inverse distribution function.

    Returns:
        [R, width] float64, from 52 random bits for each number.
    """
    with np.errstate(over="ignore"):
        columns = _mix64(np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        words = _mix64(keys[:, None] ^ columns)  # [R, width]
    shares = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    out: torch.Tensor = torch.special.ndtri(torch.from_numpy(shares))
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
    """[V] int32: one fixed hash for each token, computed once to save work for each row."""
    tokens = torch.arange(1, vocab_size + 1, dtype=torch.int32, device=device)
    return _mix32(tokens * (0x9E3779B1 - (1 << 32)))


def gumbel(keys: Words, vocab_size: int, device: torch.device) -> torch.Tensor:
    """Standard Gumbel noise for every token of every row.

    Returns:
        [R, V] float32, from 31 random bits for each number. The largest value is 22.2, so a token
        with probability 1e-9 can still win.
    """
    low = (keys & MASK32).astype(np.uint32).view(np.int32)
    high = ((keys >> np.uint64(32)) | np.uint64(1)).astype(np.uint32).view(np.int32)
    key = torch.from_numpy(np.stack([low, high])).to(device)  # [2, R]
    x = _token_words(vocab_size, device) ^ key[0][:, None]  # [R, V]
    x = _mix32(x.mul_(key[1][:, None]))
    # |x + 0.5| keeps full precision near 0, where the winning (small) exponentials come from.
    u = x.float().add_(0.5).abs_().mul_(2.0**-31).clamp_max_(1 - 2.0**-24)
    return u.neg_().log1p_().neg_().log_().neg_()


@dataclass(slots=True, kw_only=True)
class Numbers:
    """The keys of random numbers: R rows, each `levels` positions after the end of a request.

    `TOKEN` and `POSITION` numbers depend on seed and position only. The keys of other purposes also
    contain the request's length. So a position that is drafted and verified again gets new numbers,
    and a draft token kept for a later round is independent of the numbers that verify it.
    """

    seeds: Ints  # [B]
    starts: Ints  # [B] lengths of the requests
    owners: Ints  # [R] the request of each row
    levels: Ints  # [R]
    purpose: Purpose = Purpose.TOKEN

    @property
    def fresh(self) -> bool:
        """Whether the numbers change from round to round."""
        return self.purpose not in (Purpose.TOKEN, Purpose.POSITION)

    @property
    def positions(self) -> Ints:
        """[R] absolute positions."""
        where: Ints = self.starts[self.owners] + self.levels
        return where

    def rows(self, at: Ints) -> "Numbers":
        """Some of the rows."""
        return replace(self, owners=self.owners[at], levels=self.levels[at])

    def keys(self) -> Words:
        """[R] uint64."""
        rounds = self.starts[self.owners] if self.fresh else 0
        return row_keys(self.seeds[self.owners], self.positions, self.purpose, rounds)


class NoiseStore:
    """Draws noise. With torch and a small vocabulary, it draws `TOKEN` noise ahead and keeps it.

    `TOKEN` noise depends on seed and position only, and each call of torch has a fixed cost, so the
    next positions of a request are drawn together. With a large vocabulary or the compiled kernel,
    each call draws only the requested rows.
    """

    NUMBERS = 1 << 16  # kept for each request

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.vocab_size, self.device = vocab_size, device
        self._direct = device.type == "cpu" and kernels.compiled()
        self._words = _token_words(vocab_size, device).data_ptr() if self._direct else 0
        self._window = 0 if self._direct else self.NUMBERS // vocab_size  # positions
        self._slots: dict[int, int] = {}  # by seed
        self._free: list[int] = []
        self._begins = np.zeros(0, dtype=np.int64)
        self._table = torch.zeros(0, vocab_size, device=device)  # [slots * window, V]

    def forget(self, seed: int) -> None:
        """Free the noise of a request that has ended."""
        slot = self._slots.pop(seed, None)
        if slot is not None:
            self._free.append(slot)

    def draw(self, numbers: Numbers) -> kernels.Draw | None:
        """The numbers in the form of the compiled kernels; None without kernels."""
        if not self._direct:
            return None
        n, size = numbers, self.vocab_size
        parts = n.seeds, n.starts, n.owners, n.levels, n.fresh, n.purpose
        return kernels.Draw(*parts, size, self._words)

    def rows(self, numbers: Numbers) -> torch.Tensor:
        """[R, V] float32 Gumbel noise."""
        draw = self.draw(numbers)
        if draw is not None:
            return kernels.gumbel(draw)
        if self._window < 8 or numbers.purpose is not Purpose.TOKEN:
            return gumbel(numbers.keys(), self.vocab_size, self.device)
        seeds, positions = numbers.seeds[numbers.owners], numbers.positions
        slots = np.array([self._slot(seed) for seed in seeds.tolist()], dtype=np.int64)
        offsets = positions - self._begins[slots]
        if (offsets < 0).any() or (offsets >= self._window).any():
            if not self._refill(seeds, positions, slots):
                return gumbel(numbers.keys(), self.vocab_size, self.device)
            offsets = positions - self._begins[slots]
        index = slots * self._window + offsets
        if len(index) and (np.diff(index) == 1).all():  # a view instead of a copy
            return self._table[index[0] : index[-1] + 1]
        return self._table[torch.from_numpy(index).to(self.device)]

    def _slot(self, seed: int) -> int:
        if seed not in self._slots:
            if not self._free:
                self._grow()
            self._slots[seed] = self._free.pop()
            self._begins[self._slots[seed]] = -self._window  # nothing drawn yet
        return self._slots[seed]

    def _grow(self) -> None:
        old, new = len(self._begins), max(8, 2 * len(self._begins))
        table = torch.zeros(new * self._window, self.vocab_size, device=self.device)
        table[: old * self._window] = self._table
        self._table = table
        self._begins = np.concatenate([self._begins, np.zeros(new - old, dtype=np.int64)])
        self._free += range(old, new)

    def _refill(self, seeds: Ints, positions: Ints, slots: Ints) -> bool:
        """Draw noise from the first requested positions on; False if a window is too small."""
        low: dict[int, int] = {}
        high: dict[int, int] = {}
        seed_of = dict(zip(slots.tolist(), seeds.tolist(), strict=True))
        for slot, position in zip(slots.tolist(), positions.tolist(), strict=True):
            low[slot] = min(position, low.get(slot, position))
            high[slot] = max(position, high.get(slot, position))
        stale = [
            s for s in low if low[s] < self._begins[s] or high[s] >= self._begins[s] + self._window
        ]
        if any(high[s] - low[s] >= self._window for s in stale):
            return False
        ahead = np.arange(self._window)
        for slot in stale:
            at = low[slot]
            keys = row_keys(np.full(self._window, seed_of[slot]), at + ahead, Purpose.TOKEN)
            first = slot * self._window
            self._table[first : first + self._window] = gumbel(keys, self.vocab_size, self.device)
            self._begins[slot] = at
        return True

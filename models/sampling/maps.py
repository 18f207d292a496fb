"""The maps from a position's distribution and random numbers to its token.

A request names its map, because a seed determines an output only together with it. The token of a
position is map(p, seed, position), where p is the processed distribution given all earlier tokens.
So plain decoding, `match` and Jacobi decoding give the same tokens under any map. A map is a
function of the seed and the position, and any way of guessing ahead may be used with it.

The names are in models/registry.py. Letters: B requests, R rows, V vocabulary.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from models.batch import Bools, Ints
from models.registry import GUMBEL, MAPS, load
from models.sampling.noise import NoiseStore, Numbers, Purpose, gumbel, row_keys

if TYPE_CHECKING:
    from models.targets.target import Target


class NoiseMap(Protocol):
    """A deterministic map whose token has the law p over random seeds."""

    def __call__(self, values: torch.Tensor, seeds: Ints, positions: Ints) -> Ints:
        """The token of each row.

        Args:
            values: [R, V] float32, log p up to a constant of the row; -inf where p is 0.
            seeds: [R] the requests' seeds.
            positions: [R] absolute positions in the sequences; with the seeds they key the random
                numbers, see models/sampling/noise.py.
        Returns:
            [R] int64. A row's token depends on its own arguments only, not on the other rows, and
            never has probability 0.
        """


def gumbel_map(target: "Target") -> NoiseMap:
    """argmax(log p + g), with a Gumbel variable g for each token and position.

    The processor computes the same token from logits, with the compiled kernels where it can.
    """

    def choose(values: torch.Tensor, seeds: Ints, positions: Ints) -> Ints:
        noise = gumbel(row_keys(seeds, positions, Purpose.TOKEN), values.shape[-1], values.device)
        tokens: Ints = (values + noise).argmax(-1).cpu().numpy()
        return tokens

    return choose


class Processed(Protocol):
    """What `tokens_of` needs of a Processor."""

    def filtered(self, values: torch.Tensor, owners: Ints) -> torch.Tensor: ...
    def gumbel_tokens(self, values: torch.Tensor, numbers: Numbers, store: NoiseStore) -> Ints: ...


class Maps:
    """The maps of the requests on one target; each is made when a request first names it."""

    def __init__(self, target: "Target") -> None:
        self._target = target
        self._made: dict[str, NoiseMap] = {}

    def __getitem__(self, name: str) -> NoiseMap:
        """Raises KeyError for an unknown name, InvalidOption if the target does not allow it."""
        if name not in self._made:
            self._made[name] = load(MAPS[name])(self._target)
        return self._made[name]


def users(names: list[str], stochastic: Bools) -> dict[str, Bools]:
    """[B] by map: the requests that use it. Requests that use Gumbel noise or are greedy have none.

    `names` [B] are the requests' maps.
    """
    known = np.array(names)
    others = sorted(set(known[stochastic].tolist()) - {GUMBEL})
    return {name: (known == name) & stochastic for name in others}


def tokens_of(
    processor: Processed,
    maps: Maps | None,
    mapped: Mapping[str, Bools],
    values: torch.Tensor,
    numbers: Numbers,
    store: NoiseStore,
) -> Ints:
    """[R] the tokens of processed values [R, V], by each request's map.

    `mapped`: as `users` returns it.
    """
    assert maps is not None, "these requests need maps"
    owners, out = numbers.owners, np.empty(len(numbers.owners), dtype=np.int64)
    left = np.ones(len(owners), dtype=np.bool_)
    for name, members in mapped.items():
        at = np.flatnonzero(members[owners])
        if len(at):
            kept = processor.filtered(_rows(values, at), owners[at])
            out[at] = maps[name](kept, numbers.seeds[owners[at]], numbers.positions[at])
            left[at] = False
    at = np.flatnonzero(left)
    if len(at):
        out[at] = processor.gumbel_tokens(_rows(values, at), numbers.rows(at), store)
    return out


def _rows(values: torch.Tensor, at: Ints) -> torch.Tensor:
    return values[torch.from_numpy(at).to(values.device)]

"""Which actors have read which beginnings of prompts: their KV caches may still hold them.

Knows nothing of Ray. What it says is a guess, as caches forget; no token depends on it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Container, Mapping, Sequence

import numpy as np

from models.requests.request import Request

BLOCK = 64  # tokens: shorter beginnings are read sooner than it is worth waiting for
LONGEST = 64  # blocks of a prompt that are told apart
MOST = 16_384  # beginnings that are remembered


class Warmth:
    """The last actor of each beginning; see `beginnings`."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._actors: OrderedDict[bytes, str] = OrderedDict()

    def note(self, actor: str, keys: Sequence[bytes]) -> None:
        """A request with these beginnings is on this actor from now on."""
        for key in keys:
            self._actors[key] = actor
            self._actors.move_to_end(key)
        while len(self._actors) > self._most:
            self._actors.popitem(last=False)

    def warmest(self, keys: Sequence[bytes], actors: Collection[str]) -> tuple[str | None, int]:
        """The one of some actors that has read the most of a prompt, and how many blocks."""
        found, blocks = None, 0
        for number, key in enumerate(keys, 1):
            actor = self._actors.get(key)
            if actor is None:
                break
            if actor in actors:
                found, blocks = actor, number
        return found, blocks


def choose(
    keys: Sequence[bytes],
    loads: Mapping[str, int],
    limits: Mapping[str, int],
    warmth: Warmth,
    cold: Container[str] = (),
) -> str:
    """The actor for a request with these beginnings, of those with room (`loads`, not empty).

    It is the warmest, unless that has more to do than the least loaded one by more requests than
    a quarter of the blocks that it has read, or of its limit. `cold` ones read every prompt from
    its beginning.
    """
    least = min(loads, key=lambda actor: loads[actor])
    warm, blocks = warmth.warmest(keys, [actor for actor in loads if actor not in cold])
    if warm is None or loads[warm] - loads[least] > min(blocks, limits[warm]) // 4:
        return least
    return warm


def beginnings(request: Request) -> list[bytes]:
    """A key of each whole number of blocks of the prompt, ascending.

    Requests with another salt share nothing. The last token is read in the first round.
    """
    tokens = np.array(request.prompt[: min(len(request.prompt) - 1, BLOCK * LONGEST)], np.int64)
    whole, keys = hashlib.blake2b(request.cache_salt, digest_size=16), []
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        whole.update(tokens[end - BLOCK : end].tobytes())
        keys.append(whole.digest())
    return keys

"""Which actors have read which beginnings of prompts: their KV caches may still hold them.

Knows nothing of Ray. What it says is a guess, as caches forget; no token depends on it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from models.requests.request import Request

BLOCK = 64  # tokens: shorter beginnings are read sooner than it is worth waiting for
LONGEST = 64  # blocks of a prompt that are told apart
MOST = 16_384  # beginnings that are remembered


class Warmth:
    """The last actor of each beginning."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._actors: OrderedDict[bytes, str] = OrderedDict()

    def note(self, actor: str, request: Request) -> None:
        """The request is on this actor from now on."""
        for key in _beginnings(request):
            self._actors[key] = actor
            self._actors.move_to_end(key)
        while len(self._actors) > self._most:
            self._actors.popitem(last=False)

    def warmest(self, request: Request, actors: Collection[str]) -> str | None:
        """The one of some actors that has read the most of a request's prompt, if any has."""
        found = None
        for key in _beginnings(request) if self._actors else ():
            actor = self._actors.get(key)
            if actor is None:
                break
            if actor in actors:
                found = actor
        return found


def choose(
    request: Request, loads: Mapping[str, int], limits: Mapping[str, int], warmth: Warmth
) -> str:
    """The actor for a request, of those with room (`loads`, not empty).

    It is the warmest, unless that has a quarter of its limit more to do than the least loaded one.
    """
    least = min(loads, key=lambda actor: loads[actor])
    if len(loads) == 1:
        return least
    warm = warmth.warmest(request, loads)
    if warm is None or loads[warm] - loads[least] > max(1, limits[warm] // 4):
        return least
    return warm


def _beginnings(request: Request) -> Iterator[bytes]:
    """A key of each whole number of blocks of the prompt, ascending.

    Requests with another salt share nothing. The last token is read in the first round.
    """
    tokens = np.array(request.prompt[: min(len(request.prompt) - 1, BLOCK * LONGEST)], np.int64)
    whole = hashlib.blake2b(request.cache_salt, digest_size=16)
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        whole.update(tokens[end - BLOCK : end].tobytes())
        yield whole.digest()

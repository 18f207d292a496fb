"""Requests as a draft actor knows them: copies that grow by messages. The least used are dropped.

Knows nothing of models: whoever keeps more about a request is told when it is dropped.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from actors.messages import DraftAsk, Growth, Opening
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence

SAMPLED_TOP_K = 256  # tokens a draft is drawn from, at most, where its distribution must be told


class Mirrors:
    """At most `rows` requests of all targets."""

    def __init__(self, rows: int, on_drop: Callable[[Sequence], None]) -> None:
        self._rows, self._on_drop = rows, on_drop
        self._known: OrderedDict[str, Sequence] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._known)

    def update(self, ask: DraftAsk) -> tuple[list[tuple[Growth, Sequence]], list[str]]:
        """Take in what an ask tells: its requests as they are now, and the ids not known well."""
        self._drop_all(ask.client, ask.ended)
        found: list[tuple[Growth, Sequence]] = []
        missing: list[str] = []
        for growth in ask.growths:
            sequence = self._grow(ask, growth) if len(found) < self._rows else None
            if sequence is None:
                missing.append(growth.id)
            else:
                found.append((growth, sequence))
        while len(self._known) > self._rows:
            self._drop(next(iter(self._known)))
        return found, missing

    def _grow(self, ask: DraftAsk, growth: Growth) -> Sequence | None:
        key = f"{ask.client}/{growth.id}"
        sequence = self._known.get(key)
        if sequence is not None and (growth.opening is not None or not len(growth.tokens)):
            self._on_drop(sequence)  # what is kept of it may not be what is asked for now
        if growth.opening is not None:
            sequence = _sequence(key, growth, growth.opening, sampled=ask.sampled)
            self._known[key] = sequence
        if sequence is None or (growth.opening is None and len(sequence.tokens) != growth.base):
            return None
        if growth.opening is None:
            sequence.tokens += growth.tokens.tolist()
        self._known.move_to_end(key)
        return sequence

    def _drop_all(self, client: str, ids: Iterable[str]) -> None:
        for request_id in ids:
            self._drop(f"{client}/{request_id}")

    def _drop(self, key: str) -> None:
        sequence = self._known.pop(key, None)
        if sequence is not None:
            self._on_drop(sequence)


def _sequence(key: str, growth: Growth, opening: Opening, *, sampled: bool) -> Sequence:
    tokens = growth.tokens.tolist()
    sampling = _told(opening.sampling) if sampled else opening.sampling
    request = Request(
        id=key,
        prompt=tuple(tokens[: opening.num_prompt]),
        sampling=sampling,
        seed=opening.seed,
        noise=opening.noise,
        cache_salt=opening.cache_salt,
    )
    sequence = Sequence(request, eos=opening.stop_tokens)
    sequence.tokens += tokens[opening.num_prompt :]
    return sequence


def _told(sampling: Sampling) -> Sampling:
    """Draw from few tokens: the distribution that is sent is then exactly the one drawn from."""
    return replace(sampling, top_k=min(sampling.top_k or SAMPLED_TOP_K, SAMPLED_TOP_K))

"""How busy a token loop is at one moment."""

from dataclasses import dataclass

from models.loop.cache_rows import Rows
from models.targets.target import Cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`cache_usage`: the share of the KV cache's blocks that requests use, 0 to 1."""

    running: int = 0  # requests with a cache row, those in prefill included
    waiting: int = 0
    cache_usage: float = 0.0


def load_of(rows: Rows, cache: Cache) -> Load:
    """The load of a loop; may be read from another thread than the loop's."""
    return Load(
        running=len(rows.running) + len(rows.reading),
        waiting=len(rows.waiting),
        cache_usage=cache.usage,
    )

"""Allocators' errors in words that say what to change. Loads no torch."""

from collections.abc import Iterator
from contextlib import contextmanager

from models.engine_config import EngineConfig
from models.errors import PacelineError

# How torch (CPU, CUDA) and numpy say that there is no memory left.
SIGNS = ("out of memory", "alloc_cpu", "can't allocate memory", "unable to allocate")


class OutOfMemory(PacelineError, ValueError):
    """The models or their caches do not fit; the message says what would need less."""


def ran_out(error: BaseException) -> bool:
    """Whether an allocator has raised it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in SIGNS)


@contextmanager
def memory_explained(doing: str, config: EngineConfig) -> Iterator[None]:
    """Turn an allocator's error into one that names what to change.

    Raises:
        OutOfMemory: in its place.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        length = config.max_length or "the target's context length"
        raise OutOfMemory(
            f"out of memory while {doing}: lower --batch-size (now {config.batch_size}), "
            f"--max-length (now {length}) or --memory, choose --dtype bfloat16, or use a machine "
            "or GPU with more memory"
        ) from error

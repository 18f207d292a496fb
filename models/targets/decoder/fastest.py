"""Finds the faster arithmetic on this CPU by timing both: our compiled kernels, or torch.

Our kernels read weights at the speed of the memory, so they are faster for small batches. On CPUs
with half-precision arithmetic (AMX), torch may be faster for large batches.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from models.batch import Scores, chains
from models.compute.x86.kernels import compiled
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.decoder import Decoder

VOCABULARY = 1024  # size in the trial
CACHED = 64  # tokens in each row of the cache
TURNS = 5


def kernels_win(config: DecoderConfig, dtype: torch.dtype, rows: int) -> bool:
    """Whether our kernels are faster than torch at scoring one token in each of `rows` rows.

    Times one layer of this shape.
    """
    if not compiled():
        return False
    grid = None if config.grid is None else replace(config.grid, code_width=None)
    layer = replace(config, num_layers=1, vocab_size=min(VOCABULARY, config.vocab_size), grid=grid)
    decoders = [Decoder.from_config(layer, dtype=dtype, kernels=ours) for ours in (True, False)]
    passes = [_trial(decoder, rows) for decoder in decoders]
    seconds: list[list[float]] = [[], []]
    for _ in range(1 + TURNS):  # the first one warms up
        for times, score in zip(seconds, passes, strict=True):
            began = time.perf_counter()
            score()
            times.append(time.perf_counter() - began)
    ours, torchs = (statistics.median(times[1:]) for times in seconds)
    return ours <= torchs


def _trial(decoder: Decoder, rows: int) -> Callable[[], Scores]:
    cache = decoder.new_cache(rows, CACHED + 1)
    places = np.arange(rows)
    decoder.score(cache, chains(places, [[1] * CACHED] * rows, wanted=np.zeros(0, dtype=np.int64)))
    for row in range(rows):
        cache.commit(row, np.arange(CACHED))
    batch = chains(places, [[1]] * rows)
    return lambda: decoder.score(cache, batch)

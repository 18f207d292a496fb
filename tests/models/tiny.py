"""A target whose law is known exactly: a table from the last two tokens to logits.

It keeps a real transactional cache (tokens and their positions), reads histories through the
batch's visibility alone, and so fails when the loop, a draft or a commit is wrong.
"""

from itertools import product

import numpy as np
import torch

from models.batch import Batch, Scores
from models.schedules.schedule import RASTER


class TokenCache:
    shares = False

    def __init__(self, rows: int, capacity: int, total: int | None = None) -> None:
        self.total = rows * capacity if total is None else total  # entries of all rows
        self.rooms = np.zeros(rows, dtype=np.int64)
        self.entries = np.full((rows, capacity), -1, dtype=np.int64)
        self.lengths = np.zeros(rows, dtype=np.int64)

    @property
    def rows(self) -> int:
        return self.entries.shape[0]

    @property
    def capacity(self) -> int:
        return self.entries.shape[1]

    @property
    def num_bytes(self) -> int:
        return self.entries.nbytes

    @property
    def usage(self):
        return float(self.rooms.sum()) / self.total

    def commit(self, row, nodes):
        length = int(self.lengths[row])
        kept = self.entries[row, length + nodes].copy()
        assert (kept >= 0).all()
        self.entries[row, length:] = -1
        self.entries[row, length : length + len(kept)] = kept
        self.lengths[row] += len(kept)

    def begin(self, row, tokens, salt=b"", most=None):
        return 0

    def reserve(self, row, entries):
        assert entries <= self.capacity, "a request grew beyond what it was admitted for"
        more = max(entries - int(self.rooms[row]), 0)
        if more + int(self.rooms.sum()) > self.total:
            return False
        self.rooms[row] += more
        return True

    def truncate(self, row, length):
        self.entries[row, length:] = -1
        self.lengths[row] = length
        self.rooms[row] = min(length, int(self.rooms[row]))

    def move(self, source, destination):
        self.entries[destination] = self.entries[source]
        self.lengths[destination] = self.lengths[source]
        self.rooms[destination] = self.rooms[source]
        self.truncate(source, 0)

    def swap(self, first, second):
        for of_rows in (self.entries, self.lengths, self.rooms):
            of_rows[[first, second]] = of_rows[[second, first]]


class TableTarget:
    """Logits of the next token from the last two tokens (missing ones count as token 0)."""

    eos_token_ids: tuple[int, ...] = ()
    context_length = 64
    device = torch.device("cpu")
    dtype = torch.float32
    num_parameters = 0
    architecture = "table"
    adapted, steady, codes = False, True, None
    schedule = RASTER

    def __init__(self, vocab_size: int, seed: int, *, spread: float = 1.5, eos=()) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (vocab_size, vocab_size, vocab_size)
        self.table = spread * torch.randn(shape, generator=generator)  # [second last, last, V]
        self.vocab_size = self.input_size = vocab_size
        self.eos_token_ids = tuple(eos)

    def new_cache(self, rows: int, capacity: int, entries: int | None = None) -> TokenCache:
        return TokenCache(rows, capacity, entries)

    def score(self, cache: TokenCache, batch: Batch) -> Scores:
        pairs = np.zeros((len(batch.tokens), 2), dtype=np.int64)  # second last, last
        pairs[:, 1] = batch.tokens
        start = 0
        for b, row in enumerate(batch.rows.tolist()):
            count, length = int(batch.counts[b]), int(cache.lengths[row])
            first = length + batch.scratch
            cache.entries[row, first : first + count] = batch.tokens[start : start + count]
            for i in range(count):
                pairs[start + i, 0] = self._second_last(cache, batch, b, i, start + i, length)
            start += count
        if batch.wanted is not None:
            pairs = pairs[batch.wanted]
        before, last = pairs.T.copy()
        return Scores(self.table[torch.from_numpy(before), torch.from_numpy(last)])

    def _second_last(self, cache, batch, b, i, node, length) -> int:
        """The token before node i of row b, as its visibility says."""
        row, depth = int(batch.rows[b]), int(batch.depths[node])
        if depth == 0:
            return int(cache.entries[row, length - 1]) if length else 0
        visible = batch.visible[b]
        ancestors = np.arange(i + 1) if visible is None else np.flatnonzero(visible[i])
        assert len(ancestors) == depth + 1, "depth and visibility disagree"
        token = int(cache.entries[row, length + ancestors[-2]])
        assert token >= 0, "an entry that was never written is visible"
        return token


def exact_law(target: TableTarget, prompt, length: int, process) -> dict[tuple[int, ...], float]:
    """Probability of every completion of `length` tokens (shorter ones end in EOS).

    `process(logits [V], generated tuple) -> probabilities [V]` is written out by the test.
    """
    law: dict[tuple[int, ...], float] = {}

    def walk(generated: tuple[int, ...], chance: float) -> None:
        if len(generated) == length or (generated and generated[-1] in target.eos_token_ids):
            law[generated] = law.get(generated, 0.0) + chance
            return
        history = (0, *prompt, *generated)
        probs = process(target.table[history[-2], history[-1]].double(), generated)
        for token in range(target.vocab_size):
            if probs[token] > 0:
                walk((*generated, token), chance * float(probs[token]))

    walk((), 1.0)
    return law


def all_sequences(vocab_size: int, length: int):
    return list(product(range(vocab_size), repeat=length))

"""The protocol of a target model: a cache, and one method that scores nodes.

Does not depend on drafting, sampling or requests.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from models.batch import Batch, Ints, Scores
from models.compute.x86.drafts import Chooser
from models.compute.x86.kernels import Draw, Knobs
from models.schedules.schedule import Schedule


class Cache(Protocol):
    """A transactional KV cache: the entries of a forward pass are scratch until committed.

    Invariant: after any commit, a row equals one teacher-forced pass over the same tokens, and no
    entry of a node that was not committed can be attended to.
    """

    lengths: Ints  # [rows] committed entries
    shares: bool  # whether rows with the same text share entries

    @property
    def rows(self) -> int: ...
    @property
    def capacity(self) -> int: ...  # entries a row can hold, scratch included
    @property
    def num_bytes(self) -> int: ...

    @property
    def usage(self) -> float:
        """The share of the entries, 0 to 1, that rows have reserved."""

    def commit(self, row: int, nodes: Ints) -> None:
        """Keep the scratch nodes `nodes` (a path, ascending) of a row; drop all others."""

    def begin(
        self, row: int, tokens: Sequence[int], salt: bytes = b"", most: int | None = None
    ) -> int:
        """The entries of an empty row will be those of `tokens`, a list that may grow.

        Takes over the entries of as many of them as are in memory under the same salt, except the
        last one's, as if they had been committed; `most`: at most so many. Returns their number; 0
        unless `shares`.
        """

    def reserve(self, row: int, entries: int) -> bool:
        """Make room for `entries` entries of a row, scratch included; False: there is too little.

        A row keeps its room until it is truncated. Where nothing was reserved, `score` makes room.
        """

    def truncate(self, row: int, length: int) -> None:
        """Drop the committed entries of a row beyond `length`, and the room behind them."""

    def move(self, source: int, destination: int) -> None:
        """Give a row's entries to another row, whose own are dropped. Copies no entries."""

    def swap(self, first: int, second: int) -> None:
        """Exchange the entries of two rows. Copies no entries."""


class Target(Protocol):
    """A model that scores nodes under a mask.

    If its schedule is not `in_order`, it is also a `GroupTarget`: see models/schedules/feed.py.
    """

    schedule: Schedule
    vocab_size: int
    input_size: int  # number of input ids: the vocabulary, and conditions after it
    context_length: int
    num_layers: int  # hidden states are numbered 0 to this: see `Readout`
    eos_token_ids: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    num_parameters: int
    architecture: str
    adapted: bool  # whether the model runs through transformers instead of our decoder
    # Whether a token's logits have the same bits in every batch and draft, with any number of
    # threads, and on every x86 CPU with AVX2.
    steady: bool

    @property
    def codes(self) -> torch.Tensor | None:
        """[V, C] float32: the codebook of an image target's tokens; None without one."""

    @property
    def bytes_per_entry(self) -> int:
        """Bytes of one entry of a cache's row; 0 if the model keeps none."""

    def new_cache(self, rows: int, capacity: int, entries: int | None = None) -> Cache:
        """A cache for `rows` requests with up to `capacity` entries each.

        `entries`: of all rows together (None: every row can be full).
        """

    def score(self, cache: Cache, batch: Batch) -> Scores:
        """Run the batch's nodes, leave their entries as scratch in the cache, return the logits.

        Also returns what `batch.readout` asks for. Raises InvalidOption if there is no such layer.
        """


class ChoosingTarget(Target, Protocol):
    """A model that can also draft a chain or a tree in one call."""

    @property
    def chooses(self) -> bool:
        """Whether `chooser` is available on this machine."""

    def chooser(self, cache: Cache, batch: Batch, draw: Draw, knobs: Knobs) -> Chooser:
        """Drafts after a batch of chains. `draw` is for the position after the last node of a row.

        The entries of the batch and of all draft tokens except the last level's stay as scratch.
        """

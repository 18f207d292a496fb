"""What a target model is to the token loop: a cache and one method that scores nodes.

Knows nothing of drafting, sampling or requests.
"""

from typing import Protocol

import torch

from models.batch import Batch, Ints, Scores
from models.kernels import Chooser, Draw, Knobs
from models.schedule import Schedule


class Cache(Protocol):
    """Transactional key-value memory: entries of a forward pass are scratch until committed.

    Invariant: after any commit, a row equals one teacher-forced pass over the same tokens, and no
    entry of a node that was not committed can be attended to.
    """

    lengths: Ints  # [rows] committed entries

    @property
    def rows(self) -> int: ...
    @property
    def capacity(self) -> int: ...  # entries a row can hold, scratch included
    @property
    def num_bytes(self) -> int: ...

    def commit(self, row: int, nodes: Ints) -> None:
        """Keep a row's scratch nodes `nodes` (ascending indices of a path), drop the others."""

    def truncate(self, row: int, length: int) -> None:
        """Forget the committed entries of a row beyond `length`."""

    def move(self, source: int, destination: int) -> None:
        """Copy a row's committed entries over another row and empty the source."""


class Target(Protocol):
    """A model that scores positions under a mask.

    Where its schedule is not `in_order` it is a `GroupTarget` too: see models/feed.py.
    """

    schedule: Schedule
    vocab_size: int
    input_size: int  # ids that a prompt may hold: the vocabulary, and conditions behind it
    context_length: int
    eos_token_ids: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    num_parameters: int
    architecture: str
    adapted: bool  # runs through transformers instead of our decoder
    # A token's logits have the same bits in every batch and draft, with any number of threads, and
    # on every x86 CPU with AVX2.
    steady: bool

    def new_cache(self, rows: int, capacity: int) -> Cache: ...

    def score(self, cache: Cache, batch: Batch, *, hidden: bool = False) -> Scores:
        """Run the batch's nodes, leave their entries as scratch in the cache, return the logits."""


class ChoosingTarget(Target, Protocol):
    """A model that can also choose tokens by itself, pass after pass, in one call."""

    @property
    def chooses(self) -> bool:
        """Whether it can here."""

    def chooser(self, cache: Cache, batch: Batch, draw: Draw, knobs: Knobs) -> Chooser:
        """What does so behind a batch of chains; `draw` is for the position behind each row's end.

        The entries of the batch, and of all tokens but the last level's, are left as scratch.
        """

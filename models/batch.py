"""The nodes of one forward pass: their tokens, positions and masks.

Letters: B rows, T nodes of all rows packed one after the other, Q nodes of one row, W wanted nodes,
C width of a vector, n layers, D width of the model.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.readout import Readout, Top

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
VECTOR = -1  # in place of a token: the node reads its row of `inputs`


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One forward pass over `rows` of a cache.

    Row b contributes `counts[b]` consecutive nodes of `tokens`. A node's position is the row's
    committed length + its depth; its cache slot is the committed length + `scratch` + its index.
    `scratch` nodes of every row are already in the cache from earlier passes of the same round.
    A node attends to all committed entries of its row and to the scratch nodes that are True in
    `visible[b]`: [counts[b], scratch + counts[b]] bool, itself included. None means a chain: each
    node sees all nodes before it, and `scratch` is 0.
    `wanted` are the packed indices whose logits are needed; None: all. The input of a node whose
    token is VECTOR is its row of `inputs`. `conditions` are input ids that all nodes of a row are
    conditioned on, for targets that need them. `readout`: what to return besides logits.
    """

    rows: Ints  # [B] distinct
    counts: Ints  # [B]
    tokens: Ints  # [T]
    depths: Ints  # [T]
    visible: tuple[Bools | None, ...]  # [B]
    scratch: int = 0
    wanted: Ints | None = None  # [W]
    inputs: torch.Tensor | None = None  # [T, C]
    conditions: Ints | None = None  # [B]
    readout: Readout | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What a pass returns: logits, and what the batch's `readout` asks for.

    `states` are the hidden states of the n layers asked for, in their order and in the model's
    dtype; `top` are the likeliest tokens at the wanted nodes.
    """

    logits: torch.Tensor  # [W, V] float32
    states: torch.Tensor | None = None  # [T, n, D]
    top: Top | None = None


def chain(row: int, tokens: Ints, *, wanted: Ints | None = None) -> Batch:
    """A batch of one row whose nodes are a chain: a chunk of a prompt, or a draft."""
    return chains(np.array([row], dtype=np.int64), [tokens.tolist()], wanted=wanted)


def chains(rows: Ints, texts: Several[Several[int]], *, wanted: Ints | None = None) -> Batch:
    """A batch of rows [B], each with a chain of tokens."""
    counts = [len(text) for text in texts]
    return Batch(
        rows=rows,
        counts=np.array(counts, dtype=np.int64),
        tokens=np.array([token for text in texts for token in text], dtype=np.int64),
        depths=np.array([depth for count in counts for depth in range(count)], dtype=np.int64),
        visible=(None,) * len(counts),
        wanted=wanted,
    )

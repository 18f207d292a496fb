"""From a message to a draft that cannot do harm: whatever is not as it should be is refused.

What it cannot see is a distribution that is well formed but not the one that was drawn from.
Letters: N nodes, M tokens with mass, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch

from actors.messages import Guess, SparseRows
from models.batch import Ints
from models.drafting.draft import Draft, Shape, depths

TOLERANCE = 1e-3  # of a distribution's sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a guess must fit. `probs`: it must carry the distributions it was drawn from."""

    version: int
    shape: Shape
    depth: int  # beyond it a guess could not be emitted
    vocab_size: int
    chain: bool
    probs: bool
    device: torch.device


class BadGuess(Exception):
    """The message makes no sense."""


def to_draft(guess: object, wanted: Wanted) -> Draft | None:
    """The draft, cut to the shape that is wanted now; None if it is for another version.

    Raises BadGuess.
    """
    if not isinstance(guess, Guess):
        raise BadGuess(f"a {type(guess).__name__}")
    if guess.version != wanted.version:
        return None
    _check_tree(guess.tokens, guess.parents, wanted)
    levels = depths(guess.parents)
    if (np.diff(levels) < 0).any():
        raise BadGuess("nodes are not in the order of their depth")
    if wanted.chain and (levels != np.arange(1, len(levels) + 1)).any():
        raise BadGuess("not a chain")
    # Where a draft is cut depends on sizes alone, never on what was guessed.
    kept = min(int(np.searchsorted(levels, wanted.depth, side="right")), wanted.shape.budget)
    probs = _dense(guess.probs, guess.tokens, wanted)[:kept] if wanted.probs else None
    return Draft(tokens=guess.tokens[:kept], parents=guess.parents[:kept], probs=probs)


def _is_ints(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype == np.int64


def _check_tree(tokens: Ints, parents: Ints, wanted: Wanted) -> None:
    if not (_is_ints(tokens) and _is_ints(parents) and len(tokens) == len(parents)):
        raise BadGuess("tokens and parents are not two lists of the same length")
    if ((tokens < 0) | (tokens >= wanted.vocab_size)).any():
        raise BadGuess("a token is outside the vocabulary")
    if ((parents < -1) | (parents >= np.arange(len(parents)))).any():
        raise BadGuess("a node comes before its parent")


def _dense(rows: SparseRows | None, tokens: Ints, wanted: Wanted) -> torch.Tensor:
    """[N, V] float32."""
    count = len(tokens)
    if not isinstance(rows, SparseRows) or not _is_ints(rows.bounds):
        raise BadGuess("no distributions")
    if len(rows.bounds) != count + 1 or (np.diff(rows.bounds) < 0).any():
        raise BadGuess("distributions of another number")
    owners = np.repeat(np.arange(count), np.diff(rows.bounds))
    if not len(owners) == len(rows.tokens) == len(rows.probs):
        raise BadGuess("distributions of another size")
    if ((rows.tokens < 0) | (rows.tokens >= wanted.vocab_size)).any():
        raise BadGuess("a distribution goes beyond the vocabulary")
    out = np.zeros((count, wanted.vocab_size), dtype=np.float32)
    out[owners, rows.tokens] = rows.probs
    drawn = out[np.arange(count), tokens]
    if not ((out >= 0).all() and (drawn > 0).all() and (np.abs(out.sum(1) - 1) < TOLERANCE).all()):
        raise BadGuess("not the distributions that the tokens were drawn from")
    return torch.from_numpy(out).to(wanted.device)

"""The forward passes of the token loop: prompts' pieces, and roots with their drafts."""

from collections.abc import Sequence as Several

import numpy as np

from models.batch import Batch
from models.draft import Draft, levels, visibility
from models.sequence import Sequence

Piece = tuple[int, list[int]]  # a cache row and the next tokens of its prompt


def prompt_batch(pieces: Several[Piece]) -> Batch:
    """One pass over pieces of prompts; no logits are wanted."""
    counts = np.array([len(tokens) for _, tokens in pieces], dtype=np.int64)
    return Batch(
        rows=np.array([row for row, _ in pieces], dtype=np.int64),
        counts=counts,
        tokens=np.concatenate([np.array(tokens, dtype=np.int64) for _, tokens in pieces]),
        depths=np.concatenate([np.arange(count) for count in counts]),
        visible=(None,) * len(pieces),
        wanted=np.zeros(0, dtype=np.int64),
    )


def draft_batch(first: int, running: Several[Sequence], drafts: Several[Draft]) -> Batch:
    """From cache row `first` on: each root (a last token, not in the cache yet) and its draft."""
    counts = np.array([len(d) + 1 for d in drafts], dtype=np.int64)
    tokens, visible = [], []
    for sequence, draft in zip(running, drafts, strict=True):
        tokens += [sequence.tokens[-1], *draft.tokens.tolist()]
        visible.append(None if draft.is_chain else visibility(draft.parents))
    return Batch(
        rows=np.arange(first, first + len(drafts)),
        counts=counts,
        tokens=np.array(tokens, dtype=np.int64),
        depths=np.concatenate([levels(draft.parents) for draft in drafts]),
        visible=tuple(visible),
    )

"""The batches of the token loop: chunks of prompts, and roots with their drafts."""

from collections.abc import Sequence as Several

import numpy as np

from models.batch import Batch, Ints, chains
from models.drafting.draft import Draft, form_of
from models.requests.sequence import Sequence

Piece = tuple[int, list[int]]  # a cache row and the next tokens of its prompt


def prompt_batch(pieces: Several[Piece], wanted: Ints) -> Batch:
    """One pass over pieces of prompts; `wanted` [W]: the packed nodes whose logits are needed."""
    rows, texts = zip(*pieces, strict=True)
    return chains(np.array(rows, dtype=np.int64), texts, wanted=wanted)


def draft_batch(first: int, running: Several[Sequence], drafts: Several[Draft]) -> Batch:
    """Each request's root (its last token, not cached yet) and draft, from cache row `first` on."""
    form = form_of(drafts)
    tokens = []
    for sequence, draft in zip(running, drafts, strict=True):
        tokens.append(sequence.tokens[-1])
        if len(draft):
            tokens += draft.tokens.tolist()
    return Batch(
        rows=np.arange(first, first + len(drafts)),
        counts=form.counts,
        tokens=np.array(tokens, dtype=np.int64),
        depths=form.levels,
        visible=form.visible,
    )

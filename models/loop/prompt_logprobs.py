"""Log-probabilities of prompts, from the passes that read them.

Letters: T packed nodes of a pass, W those whose logits were asked for, V vocabulary.
"""

from collections.abc import Sequence as Several
from itertools import accumulate

import numpy as np
import torch

from models.batch import Ints
from models.loop.logprobs import logprobs_of
from models.loop.packing import Piece
from models.requests.sequence import Sequence


def asked_nodes(sequences: Several[Sequence], pieces: Several[Piece]) -> Ints:
    """[W] the packed nodes of pieces whose requests ask for log-probabilities of their prompts."""
    starts = [0, *accumulate(len(tokens) for _, tokens in pieces)]
    spans = zip(sequences, starts, starts[1:], strict=False)
    asked = [np.arange(a, b) for sequence, a, b in spans if sequence.lacks_prompt_logprobs]
    return np.concatenate(asked) if asked else np.zeros(0, dtype=np.int64)


def note_prompts(
    sequences: Several[Sequence], pieces: Several[Piece], begins: Several[int], logits: torch.Tensor
) -> None:
    """Add what a pass tells; `begins`: each piece's place in its prompt.

    `logits` [W, V]: of the asked nodes, or [T, V].
    """
    read = sum(len(tokens) for _, tokens in pieces)
    at, packed = 0, len(logits) == read  # then rows of all nodes are there
    for sequence, (_, tokens), begin in zip(sequences, pieces, begins, strict=True):
        asked, count = sequence.lacks_prompt_logprobs, len(tokens)
        if asked:
            known = len(sequence.prompt_logprobs)
            following = sequence.request.prompt[begin + 1 : begin + 1 + count]
            rows = logits[at : at + len(following)]
            found = logprobs_of(rows, following, sequence.request.prompt_logprobs or 0)
            sequence.prompt_logprobs += found[max(known - begin, 0) :]  # it may have given way
        at += count if asked or packed else 0

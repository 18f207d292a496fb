"""Log-probabilities of emitted tokens, from the target's unprocessed distribution."""

from collections.abc import Sequence as Several

import numpy as np
import torch

from models.readout import likeliest, log_probabilities
from models.requests.request import TokenLogprob
from models.verify.round import Commit, Round


def token_logprobs(round_: Round, b: int, commit: Commit) -> list[TokenLogprob]:
    """One entry per token that request b emitted this round."""
    count = round_.sequences[b].request.sampling.logprobs
    assert count is not None
    logits = round_.gather(round_.starts[b] + np.array(commit.path, dtype=np.int64))  # [R, V]
    return logprobs_of(logits, commit.tokens, count)


def logprobs_of(logits: torch.Tensor, tokens: Several[int], count: int) -> list[TokenLogprob]:
    """One entry per token, from its logits [R, V], each with the `count` most likely tokens."""
    logprobs = log_probabilities(logits).cpu()
    top = likeliest(logprobs, min(count, logprobs.shape[-1]))
    out = []
    for i, token in enumerate(tokens):
        pairs = zip(top.tokens[i].tolist(), top.logprobs[i].tolist(), strict=True)
        out.append(TokenLogprob(token=token, logprob=float(logprobs[i, token]), top=tuple(pairs)))
    return out

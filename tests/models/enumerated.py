"""A little language whose every completion has a known chance: V = 4 tokens, n = 4 positions.

One random table per history, as in the set-up of the project's simulations of parallel decoders.
Letters: T packed nodes, V vocabulary.
"""

from functools import cache

import numpy as np
import torch
from scipy.stats import chi2

from models.batch import Scores
from models.drafting.draft import Shape
from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from tests.models.tiny import TableTarget, all_sequences

VOCAB, LENGTH, CONDITION = 4, 4, 4  # the prompt is one condition, an id behind the vocabulary


class HistoryTarget(TableTarget):
    """Logits from the whole history: row h of the table, h the tokens as digits behind a 1."""

    def __init__(self, seed: int, spread: float) -> None:
        super().__init__(VOCAB, seed)
        self.input_size = VOCAB + 1
        generator = torch.Generator().manual_seed(seed)
        histories = 2 * VOCAB**LENGTH
        self.table = spread * torch.randn(histories, VOCAB, generator=generator)

    def score(self, cache, batch):
        codes = []  # [T]
        tokens = batch.tokens.tolist()
        for row, count in zip(batch.rows.tolist(), batch.counts.tolist(), strict=True):
            length = int(cache.lengths[row])
            nodes, tokens = tokens[:count], tokens[count:]
            cache.entries[row, length : length + count] = nodes
            code = 1
            for token in cache.entries[row, 1:length].tolist():
                code = code * VOCAB + token
            for i, token in enumerate(nodes):
                code = 1 if length + i == 0 else code * VOCAB + token
                codes.append(code)
        return Scores(self.table[torch.tensor(codes)])


@cache
def joint(target: HistoryTarget) -> np.ndarray:
    """[V ** n] the chance of every completion, in the order of `all_sequences`."""
    rows = target.table.double().log_softmax(-1)
    chances = []
    for whole in all_sequences(VOCAB, LENGTH):
        code, total = 1, 0.0
        for token in whole:
            total += float(rows[code, token])
            code = code * VOCAB + token
        chances.append(total)
    return np.exp(chances)


def decode(target, drafter, count, *, window=16, rule="rejection"):
    """[count, n] completions of the seeds 0, 1, ... and [count] target passes each."""
    loop = TokenLoop(
        target,
        drafter,
        FixedSize(Shape(depth=window)),
        rows=400,
        max_length=1 + LENGTH,
        scratch=window + 1,
        verify=rule,
    )
    sampling = Sampling(max_tokens=LENGTH)
    results = loop.run(
        Request(id=str(i), prompt=(CONDITION,), sampling=sampling, seed=i) for i in range(count)
    )
    found = {r.id: r for r in results}
    tokens = np.array([found[str(i)].tokens for i in range(count)])
    return tokens, np.array([found[str(i)].target_passes for i in range(count)])


def fit(tokens, law):
    """Chi-square over its degrees of freedom, and the chance of so large a one under the law."""
    codes = tokens @ (VOCAB ** np.arange(LENGTH)[::-1])
    observed = np.bincount(codes, minlength=VOCAB**LENGTH).astype(float)
    expected = law * len(tokens)
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    statistic, df = ((observed - expected) ** 2 / expected).sum(), len(expected) - 1
    return float(statistic / df), float(chi2.sf(statistic, df))

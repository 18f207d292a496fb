"""The tokens that a drafter can draft, where these are not all: the most frequent ones.

An output matrix of K rows instead of V makes each drafted token cheaper. Laws over the K tokens
have a last column for the chance of all others, which the drafter cannot choose. They are not
normalised without it, so a drafter is not praised at places where it cannot be right.
Letters: V vocabulary, K tokens that can be drafted, `...` places.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.drafting.distil.texts import Text


@dataclass(frozen=True, slots=True)
class DraftVocabulary:
    """`ids` [K]: the target's ids, each once, in any order; laws may be on any device."""

    ids: torch.Tensor

    def laws(self, known: torch.Tensor) -> torch.Tensor:
        """[..., K + 1] from log-probabilities [..., K] of the tokens that can be drafted."""
        tiny = torch.finfo(known.dtype).tiny
        rest = (1 - known.exp().sum(-1, keepdim=True)).clamp(min=tiny).log()
        return torch.cat([known, rest], dim=-1)

    def of_all(self, log_p: torch.Tensor) -> torch.Tensor:
        """[..., K + 1] from log-probabilities [..., V]."""
        return self.laws(log_p[..., self.ids.to(log_p.device)])

    def padded(self, log_q: torch.Tensor) -> torch.Tensor:
        """[..., K + 1] from a drafter's log-probabilities [..., K]: it never chooses the others."""
        return F.pad(log_q, (0, 1), value=-torch.inf)

    def columns(self, tokens: torch.Tensor) -> torch.Tensor:
        """The column of each of the target's tokens, K for those that cannot be drafted."""
        size, beyond = len(self.ids), int(self.ids.max()) + 1
        table = torch.full((beyond + 1,), size)
        table[self.ids] = torch.arange(size)
        return table.to(tokens.device)[tokens.clamp(max=beyond)]

    def tokens(self, columns: torch.Tensor) -> torch.Tensor:
        """The target's token of each column [...]."""
        return self.ids.to(columns.device)[columns]


def frequent_ids(
    texts: Iterable[Text], count: int, *, vocab_size: int, always: Sequence[int] = ()
) -> torch.Tensor:
    """[count] int64, ascending: `always`, and the tokens that the target wrote most often.

    Of tokens that are equally frequent the lower ids go first: in a vocabulary of merged pairs,
    these are those of more frequent pairs.
    """
    counts = torch.zeros(vocab_size, dtype=torch.int64)
    for text in texts:
        written = torch.tensor(text.tokens[text.num_prompt :], dtype=torch.int64)
        counts += torch.bincount(written, minlength=vocab_size)[:vocab_size]
    counts[list(always)] = torch.iinfo(torch.int64).max
    order = counts.argsort(descending=True, stable=True)
    return order[:count].sort().values

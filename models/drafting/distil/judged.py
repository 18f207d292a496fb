"""The laws of target and drafter side by side, at the places of the target's texts.

Letters: B texts, N positions, M places, V vocabulary, K tokens that can be drafted.
"""

from dataclasses import dataclass

import torch

from models.drafting.distil.draft_vocabulary import DraftVocabulary
from models.drafting.distil.texts import TextBatch
from models.metrics.agreement import agreement_on, at_temperature, same_likeliest


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Texts with the laws of the target (see `DrafterKind._taught`) and those of the drafter."""

    batch: TextBatch
    laws: torch.Tensor  # [M, V]
    rows: torch.Tensor  # [B, N]
    found: list[torch.Tensor]  # [B, ., V] by depth; [B, ., K] of a vocabulary of its own
    vocabulary: DraftVocabulary | None

    def at(self, offset: int, level: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Laws [., V] of target and drafter for the tokens `offset` after an index.

        And whether their likeliest tokens are the same, [.]. With a vocabulary of its own, the laws
        have its columns.
        """
        p, q, _ = self._whole(offset, level)
        if self.vocabulary is None:
            return p, q, same_likeliest(p, q)
        same = self.vocabulary.tokens(q.argmax(-1)) == p.argmax(-1)
        return self.vocabulary.of_all(p), self.vocabulary.padded(q), same

    def accepted(
        self, offset: int, level: int, temperatures: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the target wrote the token `offset` after an index, [B, N - offset] bool.

        And the chance that this token is accepted, at temperatures [B].
        """
        p, q, there = self._whole(offset, level)
        tokens = self.batch.tokens[:, offset:][there]
        told = temperatures[:, None].expand(there.shape)[there]
        if self.vocabulary is None:
            return there, agreement_on(p, q, tokens, told)
        some, sampled = self.vocabulary, (told > 0).to(told.dtype)
        p, q = some.of_all(at_temperature(p, told)), some.padded(at_temperature(q, told))
        return there, agreement_on(p, q, some.columns(tokens), sampled)

    def _whole(self, offset: int, level: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The laws as they are, and where they are, [B, N - offset] bool."""
        there = self.batch.written[:, offset:]
        at = self.rows[:, offset - 1 : -1]
        return self.laws[at[there]], self.found[level][:, : there.shape[1]][there], there

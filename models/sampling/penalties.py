"""Penalties for tokens that a request has seen. Letters: B requests, R rows, V vocabulary."""

from collections.abc import Sequence as Several

import numpy as np
import torch

from models.batch import Ints
from models.requests.sequence import Sequence


class Penalties:
    """Presence, frequency and repetition penalties of a batch."""

    def __init__(self, sequences: Several[Sequence], vocab_size: int, device: torch.device) -> None:
        settings = [s.request.sampling for s in sequences]
        columns = [
            [s.presence_penalty for s in settings],
            [s.frequency_penalty for s in settings],
            [s.repetition_penalty for s in settings],
        ]
        table = torch.tensor(columns, dtype=torch.float32, device=device)[..., None]  # [3, B, 1]
        self._presence, self._frequency, self._repetition = table.unbind()
        self._prompt = _counts([s.request.prompt for s in sequences], vocab_size, device) > 0
        self._generated = _counts([s.generated for s in sequences], vocab_size, device)  # [B, V]

    def add(self, owners: Ints, tokens: Ints, amount: int) -> None:
        """Add `amount` to the counts of tokens [R] of the requests owners [R]."""
        where = torch.from_numpy(np.stack([owners, tokens])).to(self._generated.device)
        by = torch.full((len(owners),), float(amount), device=self._generated.device)
        self._generated.index_put_((where[0], where[1]), by, accumulate=True)

    def __call__(
        self, logits: torch.Tensor, at: torch.Tensor, ahead: torch.Tensor | None
    ) -> torch.Tensor:
        """[R, V] -> [R, V]. `at` [R]: each row's request. `ahead` [R, V]: additional counts."""
        counts = self._generated[at]  # [R, V]
        counts = counts if ahead is None else counts + ahead
        seen = counts > 0
        factor = self._repetition[at]  # [R, 1]
        divided = torch.where(logits > 0, logits / factor, logits * factor)
        logits = torch.where(seen | self._prompt[at], divided, logits)
        return logits - self._frequency[at] * counts - self._presence[at] * seen


def _counts(tokens: Several[Several[int]], vocab_size: int, device: torch.device) -> torch.Tensor:
    """[B, V] float32 token counts; ids beyond the vocabulary (classes) are not counted."""
    rows = [np.bincount(np.asarray(t, dtype=np.int64), minlength=vocab_size) for t in tokens]
    return torch.from_numpy(np.stack([row[:vocab_size] for row in rows]).astype(np.float32)).to(
        device
    )

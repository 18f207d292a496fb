"""One round of a batch as the verification rules see it, and what they decide.

Letters: B requests, T packed nodes (each request's root first, then its draft), V vocabulary.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass, field

import numpy as np
import torch

from models.batch import Ints
from models.draft import Draft, depths
from models.noise import Purpose, gumbel, row_keys, uniform
from models.processing import Processor
from models.sequence import Sequence

EAGER_NOISE = 1 << 22  # numbers drawn ahead in one go, at most


class RoundNoise:
    """The random numbers of one round, for positions counted from each request's end.

    `TOKEN` noise depends on seed and position alone. The other purposes are keyed by the length at
    which the round began too: a position that is drafted and judged again gets fresh numbers.
    """

    def __init__(
        self, sequences: Several[Sequence], vocab_size: int, device: torch.device, *, ahead: int = 0
    ) -> None:
        self._seeds = np.array([s.request.seed for s in sequences], dtype=np.int64)
        self._starts = np.array([len(s.tokens) for s in sequences], dtype=np.int64)
        self._vocab_size, self._device = vocab_size, device
        fits = EAGER_NOISE // (vocab_size * max(len(sequences), 1))
        self._ahead = min(ahead, fits) + 1
        self._levels: dict[Purpose, torch.Tensor] = {}

    def _keys(self, purpose: Purpose, owners: Ints, levels: Ints):  # type: ignore[no-untyped-def]
        starts = self._starts[owners]
        rounds = 0 if purpose is Purpose.TOKEN else starts
        return row_keys(self._seeds[owners], starts + levels, purpose, rounds)

    def levels(self, purpose: Purpose, count: int) -> torch.Tensor:
        """[at least count, B, V] Gumbel noise of the first positions of every request."""
        known = self._levels.get(purpose)
        if known is not None and len(known) >= count:
            return known
        begin = 0 if known is None else len(known)
        end, batch = max(count, self._ahead), len(self._seeds)
        level, owner = np.divmod(np.arange(begin * batch, end * batch), max(batch, 1))
        new = gumbel(self._keys(purpose, owner, level), self._vocab_size, self._device)
        new = new.view(end - begin, batch, self._vocab_size)
        self._levels[purpose] = new if known is None else torch.cat([known, new])
        return self._levels[purpose]

    def rows(self, purpose: Purpose, owners: Ints, levels: Ints) -> torch.Tensor:
        """[R, V] Gumbel noise: request owners[r], levels[r] positions after its end."""
        table = self.levels(purpose, int(levels.max()) + 1)
        batch = len(self._seeds)
        if len(owners) == batch and not levels.any() and (owners == np.arange(batch)).all():
            return table[0]
        flat = table.view(-1, self._vocab_size)
        return flat[torch.from_numpy(levels * batch + owners).to(self._device)]

    def fresh(self, purpose: Purpose, owners: Ints, levels: Ints) -> torch.Tensor:
        """As `rows`, for numbers needed once: nothing is drawn ahead or kept."""
        return gumbel(self._keys(purpose, owners, levels), self._vocab_size, self._device)

    def uniform(self, purpose: Purpose, owners: Ints, levels: Ints) -> Ints:
        """[R] float64 in [0, 1)."""
        return uniform(self._keys(purpose, owners, levels))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Round:
    """What a rule needs: the target's logits at every node, and how to process and draw."""

    sequences: Several[Sequence]
    drafts: Several[Draft]
    logits: torch.Tensor  # [T, V] float32
    processor: Processor
    noise: RoundNoise
    starts: Ints = field(init=False)  # [B] packed index of each root

    def __post_init__(self) -> None:
        sizes = np.array([len(d) + 1 for d in self.drafts], dtype=np.int64)
        object.__setattr__(self, "starts", np.cumsum(sizes) - sizes)

    @property
    def generated(self) -> Ints:
        """[B] tokens generated before this round."""
        return np.array([s.num_generated for s in self.sequences], dtype=np.int64)

    def nodes(self) -> tuple[Ints, Ints]:
        """Owner and depth (the root's is 0) of every packed node: [T], [T]."""
        owners = np.repeat(np.arange(len(self.drafts)), [len(d) + 1 for d in self.drafts])
        levels = np.concatenate([np.concatenate([[0], depths(d.parents)]) for d in self.drafts])
        return owners, levels

    def gather(self, indices: Ints) -> torch.Tensor:
        """[R, V] logits of packed nodes."""
        if len(indices) == len(self.logits):
            return self.logits
        return self.logits[torch.from_numpy(indices).to(self.logits.device)]


@dataclass(slots=True)
class Commit:
    """What stands of one request's round.

    `path` holds the scratch nodes (0 is the root, i + 1 the draft's node i) that the emitted tokens
    were drawn at: tokens[j] is the target's choice at path[j]. So the tokens before the last are
    the accepted draft nodes path[1:].
    """

    tokens: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)

    @property
    def num_accepted(self) -> int:
        return len(self.path) - 1


def children(draft: Draft) -> dict[tuple[int, int], int]:
    """(scratch index of the parent, token) -> scratch index of the child; of equal twins the first."""
    out: dict[tuple[int, int], int] = {}
    pairs = zip(draft.parents.tolist(), draft.tokens.tolist(), strict=True)
    for i, (parent, token) in enumerate(pairs):
        out.setdefault((parent + 1, token), i + 1)
    return out

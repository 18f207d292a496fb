"""The input and output of the verification rules: a round, and a commit for each request.

Letters: B requests, T packed nodes (each request's root first, then its draft), V vocabulary.
"""

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from models.batch import Ints
from models.compute.x86.kernels import Draw
from models.drafting.draft import Draft, Form, form_of
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore, Numbers, Purpose, uniform
from models.sampling.processing import Processor


class RoundNoise:
    """The random numbers of one round, for positions counted from each request's end.

    See `Numbers` for their keys.
    """

    def __init__(self, sequences: Several[Sequence], store: NoiseStore) -> None:
        self._seeds = np.array([s.request.seed for s in sequences], dtype=np.int64)
        self._starts = np.array([len(s.tokens) for s in sequences], dtype=np.int64)
        self._store = store

    def rows(self, purpose: Purpose, owners: Ints, levels: Ints) -> torch.Tensor:
        """[R, V] Gumbel noise: request owners[r], levels[r] positions after its end."""
        return self._store.rows(self._numbers(purpose, owners, levels))

    def choose(
        self,
        processor: Processor,
        values: torch.Tensor,
        purpose: Purpose,
        owners: Ints,
        levels: Ints,
    ) -> Ints:
        """[R] the tokens that processed values [R, V] and this noise determine."""
        return processor.tokens(values, self._numbers(purpose, owners, levels), self._store)

    def draw(self, purpose: Purpose, owners: Ints, levels: Ints) -> Draw | None:
        """The same numbers in the form of the compiled kernels; None without kernels."""
        return self._store.draw(self._numbers(purpose, owners, levels))

    def _numbers(self, purpose: Purpose, owners: Ints, levels: Ints) -> Numbers:
        return Numbers(
            seeds=self._seeds, starts=self._starts, owners=owners, levels=levels, purpose=purpose
        )

    def uniform(self, purpose: Purpose, owners: Ints, levels: Ints) -> NDArray[np.float64]:
        """[R] in [0, 1)."""
        return uniform(self._numbers(purpose, owners, levels).keys())


@dataclass(slots=True)
class Round:
    """What a rule needs: the target's logits at every node, the processor and the noise."""

    sequences: Several[Sequence]
    drafts: Several[Draft]
    logits: torch.Tensor  # [T, V] float32
    processor: Processor
    noise: RoundNoise
    form: Form = field(init=False)

    def __post_init__(self) -> None:
        self.form = form_of(self.drafts)

    @property
    def starts(self) -> Ints:
        """[B] packed index of each root."""
        return self.form.starts

    @property
    def generated(self) -> Ints:
        """[B] tokens generated before this round."""
        return np.array([s.num_generated for s in self.sequences], dtype=np.int64)

    def nodes(self) -> tuple[Ints, Ints]:
        """Owner and depth (the root's is 0) of every packed node: [T], [T]."""
        return self.form.owners, self.form.levels

    def gather(self, indices: Ints) -> torch.Tensor:
        """[R, V] logits of packed nodes."""
        if len(indices) == len(self.logits):
            return self.logits
        return self.logits[torch.from_numpy(indices).to(self.logits.device)]


def path_counts(round_: Round) -> torch.Tensor:
    """[T, V] counts of each token on the path from a chain's root to a node, the node included.

    The root is not counted, because it was observed when it was decided.
    """
    owners, depths = round_.nodes()
    steps = np.flatnonzero(depths > 0)
    sums = np.zeros(round_.logits.shape, dtype=np.float32)
    sums[steps, np.concatenate([draft.tokens for draft in round_.drafts])] = 1.0
    sums = sums.cumsum(0)
    sums -= sums[round_.starts[owners]]
    return torch.from_numpy(sums).to(round_.logits.device)


def chain_paths(round_: Round) -> list[list[int]]:
    """[T] the draft tokens from a chain's root (excluded) to a node, the node included."""
    drafted = [draft.tokens.tolist() for draft in round_.drafts]
    return [tokens[:depth] for tokens in drafted for depth in range(len(tokens) + 1)]


def chain_probabilities(round_: Round) -> torch.Tensor:
    """[T, V] the target's processed distribution at every node of the round's chains."""
    owners, depths = round_.nodes()
    counts = path_counts(round_) if round_.processor.counts_tokens else None
    generated = round_.generated[owners] + depths
    paths = chain_paths(round_) if round_.processor.has_grammars else None
    processed = round_.processor(round_.logits, owners, generated, counts, paths)
    return round_.processor.probabilities(processed, owners)


@dataclass(slots=True)
class Commit:
    """The tokens that a request emits in one round, and the nodes where they were chosen.

    `path` holds scratch nodes: 0 is the root, i + 1 is the draft's node i. tokens[j] was chosen at
    path[j]. So all tokens but the last are the accepted draft nodes path[1:].
    """

    tokens: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)

    @property
    def num_accepted(self) -> int:
        return len(self.path) - 1


def emit(round_: Round, b: int, tokens: list[int]) -> Commit:
    """Append the tokens of a chain, from its root on, to request b until it ends."""
    commit = Commit()
    for depth, token in enumerate(tokens):
        commit.path.append(depth)
        commit.tokens.append(token)
        if round_.sequences[b].append(token):
            break
    round_.processor.observe(np.full(len(commit.tokens), b), np.array(commit.tokens))
    return commit


def children(draft: Draft) -> dict[tuple[int, int], int]:
    """(parent's scratch index, token) -> child's scratch index; of equal siblings the first."""
    out: dict[tuple[int, int], int] = {}
    if not len(draft):
        return out
    pairs = zip(draft.parents.tolist(), draft.tokens.tolist(), strict=True)
    for i, (parent, token) in enumerate(pairs):
        out.setdefault((parent + 1, token), i + 1)
    return out


Rule = Callable[[Round], list[Commit]]

"""Trees of a draft model's most likely tokens, grown level by level.

Letters: B sequences, W nodes a level, N nodes, V vocabulary.
"""

import math

import numpy as np
import torch

from models.batch import Bools, Ints
from models.compute.x86.drafts import Trees

CHILDREN = 4  # continuations considered for each node; more did not help
# The draft model's values are sharpened to estimate what the target chooses, because the rank of a
# token predicts this better than its probability. Accepted lengths of 11 nodes rose by 5 to 9 %.
SHARPNESS = 2.0

# With another map than Gumbel noise: the chance that the target makes the draft model's choice.
OWN = 0.5


def favour(chances: torch.Tensor, rows: Ints, tokens: Ints) -> torch.Tensor:
    """Log-chances [R, V] with a chance of OWN for the draft model's choices `tokens` in `rows`.

    Their other tokens keep their proportions.
    """
    at = torch.from_numpy(rows).to(chances.device)
    chosen = torch.from_numpy(tokens).to(chances.device)[:, None]
    mixed = chances[at] + math.log(1 - OWN)
    own = mixed.gather(1, chosen).logaddexp(mixed.new_tensor(math.log(OWN)))
    return chances.index_copy(0, at, mixed.scatter(1, chosen, own))


class Tree:
    """B trees that grow by W nodes a level, up to N: tokens, parents, scores [B, N], visible.

    A node's score is the log of the probability that the target accepts the path to it.
    """

    def __init__(self, batch: int, width: int, depth: int) -> None:
        most = width * depth
        self.width, self.size = width, 0  # nodes so far
        self.tokens = np.zeros((batch, most), dtype=np.int64)
        self.parents = np.zeros((batch, most), dtype=np.int64)
        self.scores = np.zeros((batch, most), dtype=np.float32)
        self.visible: Bools = np.zeros((batch, most, most), dtype=np.bool_)  # [B, N, N]
        self.visible[:, np.arange(most), np.arange(most)] = True
        self._rows = np.arange(batch)[:, None]  # [B, 1]

    def grow(self, log_chance: torch.Tensor) -> None:
        """Add the W most likely children of the last level.

        Args:
            log_chance: [B * W, V] (at the root [B, V]): log of the probability that the target
                chooses each token at a node, given that it reached the node.
        """
        batch, old = len(self.tokens), self.size
        nodes = len(log_chance) // batch  # parents in each tree
        fan = self.width if nodes == 1 else min(CHILDREN, self.width)
        top = log_chance.topk(fan, dim=-1)
        values = top.values.view(batch, nodes, fan).cpu().numpy()
        tokens = top.indices.view(batch, nodes * fan).cpu().numpy()
        if old:
            values = values + self.scores[:, old - nodes : old, None]
        values = values.reshape(batch, nodes * fan)
        best = (-values).argsort(axis=1, kind="stable")[:, : self.width]  # [B, W]
        parents = best // fan + (old - nodes if old else -1)
        new = slice(old, old + self.width)
        self.tokens[:, new] = tokens[self._rows, best]
        self.parents[:, new] = parents
        self.scores[:, new] = values[self._rows, best]
        if old:
            self.visible[:, new, :old] = self.visible[self._rows, parents, :old]
        self.size += self.width

    def paths(self) -> list[list[int]]:
        """The tokens from the root to each node of the last level, [B * W]; [B] empty at first."""
        if not self.size:
            return [[] for _ in self.tokens]
        last = range(self.size - self.width, self.size)
        seen = self.visible[:, :, : self.size]
        return [
            own[row[node, : self.size]].tolist()
            for own, row in zip(self.tokens[:, : self.size], seen, strict=True)
            for node in last
        ]

    def best(self, budget: int) -> Trees:
        """All nodes, and the `budget` best of each tree. No node scores above its parent."""
        order = np.argsort(-self.scores[:, : self.size], axis=1, kind="stable")
        kept = np.sort(order[:, :budget], axis=1)  # [B, M]
        place = np.full((len(kept), self.size + 1), -1)
        place[self._rows, kept] = np.arange(kept.shape[1])  # place[:, -1] stays -1: the root
        parents = place[self._rows, self.parents[self._rows, kept]]
        tokens = self.tokens[self._rows, kept]
        return Trees(self.tokens, self.parents, tokens, parents, kept // self.width + 1)

"""Trees of nodes for tests: as a batch, and node by node as the texts they stand for."""

from dataclasses import dataclass

import numpy as np

from models.batch import Batch


@dataclass(frozen=True)
class Tree:
    """Scratch nodes of one row, in order; -1 is the committed text."""

    tokens: np.ndarray
    parents: tuple[int, ...]

    def path(self, node: int) -> list[int]:
        """The nodes from the root to `node`, itself included."""
        path = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return path[::-1]

    def visible(self, start: int, stop: int) -> np.ndarray:
        """What the nodes start..stop-1 see: [stop - start, stop] bool."""
        seen = np.zeros((stop - start, stop), dtype=np.bool_)
        for node in range(start, stop):
            seen[node - start, self.path(node)] = True
        return seen


SHAPES = {
    "chain": (-1, 0, 1, 2, 3, 4),
    "star": (-1, 0, 0, 0, 0),
    "binary": (-1, 0, 0, 1, 1, 2, 2),
    "forest": (-1, -1, -1, 0, 1, 1, 4, 2),
    "comb": (-1, 0, 1, 1, 3, 3, 5, 0),
}


def grow(rng: np.random.Generator, shape: str, vocabulary: int) -> Tree:
    """A tree of the shape with random tokens."""
    parents = SHAPES[shape]
    return Tree(rng.integers(0, vocabulary, len(parents)), parents)


def batch_of(rows, trees, *, start=0, stops=None, wanted=None) -> Batch:
    """The nodes start..stop-1 of every row's tree as one pass; earlier ones are scratch."""
    stops = stops or [len(tree.parents) for tree in trees]
    spans = list(zip(trees, stops, strict=True))
    return Batch(
        rows=np.array(rows),
        counts=np.array([stop - start for stop in stops]),
        tokens=np.concatenate([tree.tokens[start:stop] for tree, stop in spans]),
        depths=np.array(
            [len(tree.path(node)) - 1 for tree, stop in spans for node in range(start, stop)]
        ),
        visible=tuple(tree.visible(start, stop) for tree, stop in spans),
        scratch=start,
        wanted=wanted,
    )

"""A drafter that knows what will come: it guesses right for a while, then wrong, or not at all.

How well it guesses follows from a seeded schedule, so that ends, moves and penalties fall inside
accepted drafts, on their edges and behind them.
"""

import numpy as np

from models.drafting.draft import EMPTY, Draft

RIGHT = 1.0  # chance of a right guess that makes all right


class Prophet:
    """Chains, or trees of `shape.width` guesses a level of which one goes on.

    `completions`: by request, what plain decoding gives. `right`: the chance that a guess is right
    given that those before it are. `absent`: the chance of no draft at all. `wanders`: it works
    elsewhere at times, as a remote drafter whose pool comes and goes.

    It guesses to the shape's full depth, also beyond what its request may still emit.
    """

    name, passes, transfer_s, max_width = "prophet", 0, 0.0, 8
    bytes_per_entry = 0
    wants = None

    def __init__(self, completions, vocab_size, *, right=RIGHT, absent=0.0, wanders=False, seed=0):
        self._known, self._size, self._right = completions, vocab_size, right
        self._absent, self._wanders = absent, wanders
        self._rng = np.random.default_rng(seed)
        self.remote = False
        self.ends: dict[str, list[int]] = {}  # by request, tokens generated after each round

    def propose(self, sequences, shape, context):
        return [self._draft(sequence, shape) for sequence in sequences]

    def observe(self, round_, commits):
        for sequence in round_.sequences:
            self.ends.setdefault(sequence.id, []).append(sequence.num_generated)
        if self._wanders:
            self.remote = bool(self._rng.random() < 0.5)

    def forget(self, request_id):
        pass

    def _draft(self, sequence, shape):
        if self._rng.random() < self._absent:
            return EMPTY
        coming = self._known[sequence.id][sequence.num_generated :][: shape.depth]
        filled = [*coming, *self._rng.integers(0, self._size, shape.depth - len(coming)).tolist()]
        nodes, tip = [], -1
        for token in filled:
            if self._rng.random() >= self._right:
                token = (token + 1) % self._size
            level = self._rng.integers(0, self._size, shape.width).tolist()
            place = int(self._rng.integers(shape.width))
            level[place] = token
            nodes += [(guess, tip) for guess in level]
            tip = len(nodes) - shape.width + place
        tokens, parents = np.array(nodes, dtype=np.int64).T.copy()
        return Draft(tokens=tokens, parents=parents)

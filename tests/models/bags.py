"""A target of any order whose law is known exactly, and schedules to decode it by.

The logits of a node are sums over the entries it sees, so that every mask, position, token and
cache entry counts. Letters: V vocabulary, N output positions.
"""

from itertools import product

import numpy as np
import torch

from models.batch import Scores
from models.sampling.noise import Purpose, row_keys, uniform
from models.schedules.feed import Feed
from models.schedules.schedule import RASTER, Plan
from tests.models.tiny import TokenCache

SIDE, VOCAB = 2, 3
SIZE = SIDE * SIDE
PROMPT, QUERY = VOCAB, VOCAB + 1  # the prompt's token; what a query reads
KINDS = VOCAB + 2


class Diagonals:
    """Of a square grid, from the upper left."""

    name, in_order, sample_dependent, num_positions = "diagonals", False, False, SIZE

    def next(self, canvas):
        places = np.arange(SIZE)
        return Plan(places[places // SIDE + places % SIDE == len(canvas.groups)])


class RandomGroups:
    """Groups of 1, 1 and 2 positions in an order that each request's seed decides."""

    name, in_order, sample_dependent, num_positions = "random", False, False, SIZE
    SIZES = (1, 1, 2)

    def next(self, canvas):
        seeds = np.full(SIZE, canvas.request.seed)
        order = np.argsort(uniform(row_keys(seeds, np.arange(SIZE), Purpose.ACCEPT)))
        done = canvas.num_generated
        return Plan(order[done : done + self.SIZES[len(canvas.groups)]])


class ByValue(RandomGroups):
    """Looks at sampled values: its law is not that of the target in any fixed order."""

    sample_dependent = True

    def next(self, canvas):
        left = canvas.undecided
        return Plan(left[-1:] if 0 in canvas.values else left[:1])


class BagTarget:
    """Logits at sequence position p: bias[p] + the sum of weight[p, position, token] over what is
    seen. An entry of the cache is position * KINDS + token.
    """

    eos_token_ids = ()
    context_length = 1 + SIZE
    device, dtype = torch.device("cpu"), torch.float32
    num_parameters, architecture, adapted, steady = 0, "bag", False, True
    vocab_size, input_size, scratch = VOCAB, VOCAB + 1, 2 * SIZE
    schedule = RASTER

    def __init__(self, schedule, feeding, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.bias = torch.randn(1 + SIZE, VOCAB, generator=generator)
        shape = (1 + SIZE, 1 + SIZE, KINDS, VOCAB)
        self.weight = torch.randn(shape, generator=generator)
        self.schedule, self._feeding = schedule, feeding

    def new_cache(self, rows, capacity, entries=None):
        return TokenCache(rows, capacity, entries)

    def check(self, request):
        pass

    def feed(self, canvases, plans):
        return [self._feeding(c, p.positions) for c, p in zip(canvases, plans, strict=True)]

    def score(self, cache, batch):
        out, start = [], 0
        for b, row in enumerate(batch.rows.tolist()):
            nodes, length = slice(start, start + int(batch.counts[b])), int(cache.lengths[row])
            start = nodes.stop
            positions = length + batch.depths[nodes]
            entries = positions * KINDS + batch.tokens[nodes]
            cache.entries[row, length : length + len(entries)] = entries
            for position, seen in zip(positions.tolist(), batch.visible[b], strict=True):
                known = [*cache.entries[row, :length], *entries[seen]]
                out.append(self.logits(position, known))
        logits = torch.stack(out)
        return Scores(logits if batch.wanted is None else logits[batch.wanted])

    def logits(self, position, entries):
        """[V] at a sequence position that sees these entries; sums in one fixed order."""
        known = np.sort(np.array(entries))
        assert (known >= 0).all(), "an entry that was never written is visible"
        return self.bias[position] + self.weight[position, known // KINDS, known % KINDS].sum(0)


def neighbour(place):
    """The place whose token a diagonal's node reads: the one above, or else to the left."""
    return place - SIDE if place >= SIDE else place - 1


def feed_diagonal(canvas, planned):
    """A node for every planned place, at its position; all see each other and all stay."""
    tokens = [PROMPT if p == 0 else canvas.values[neighbour(p)] for p in planned.tolist()]
    count, length = len(planned), canvas.num_generated
    return Feed(
        tokens=np.array(tokens), depths=1 + planned - length, visible=np.ones((count,) * 2, bool),
        wanted=np.arange(count), kept=np.arange(count),
    )  # fmt: skip


def feed_queries(canvas, planned):
    """The last group's tokens, which stay, and a query for every planned place, which does not."""
    last = canvas.groups[-1] if canvas.groups else np.array([-1])
    known = canvas.values[last] if canvas.groups else np.array([PROMPT])
    old, new = len(last), len(planned)
    length = 1 + canvas.num_generated - old if canvas.groups else 0
    visible = np.eye(old + new, dtype=bool)
    visible[:, :old] = True
    return Feed(
        tokens=np.concatenate([known, np.full(new, QUERY)]),
        depths=np.concatenate([1 + last, 1 + planned]) - length,
        visible=visible,
        wanted=old + np.arange(new),
        kept=np.arange(old),
    )


def diagonal_law(target):
    """Probability of every grid, written out from the definition of the model."""
    groups = [[0], [1, 2], [3]]

    def entries(values, count):
        places = [p for group in groups[:count] for p in group]
        return [(1 + p) * KINDS + (PROMPT if p == 0 else values[neighbour(p)]) for p in places]

    return _law(target, groups, lambda values, g, p: entries(values, g + 1))


def query_law(target, order):
    groups = [[order[0]], [order[1]], sorted(order[2:])]

    def entries(values, g, place):
        known = [PROMPT] + [(1 + p) * KINDS + values[p] for group in groups[:g] for p in group]
        return [*known, (1 + place) * KINDS + QUERY]

    return _law(target, groups, entries)


def _law(target, groups, entries):
    law = {}
    for values in product(range(VOCAB), repeat=SIZE):
        chance = 1.0
        for g, group in enumerate(groups):
            for place in group:
                logits = target.logits(1 + place, entries(values, g, place)).double()
                chance *= float(logits.softmax(0)[values[place]])
        law[values] = chance
    return law

"""Passes of fixed sizes: the buffers, padding, and rounds that run as compiled graphs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.batch import chains
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.memory.static_inputs import MOST_NODES, Size, StaticInputs, size_for
from models.readout import Readout
from models.requests.request import Request, Sampling
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.static_pass import StaticPass
from tests.models.conformance import prefill
from tests.models.decoders import CONFIG
from tests.models.entries import entries
from tests.models.trees import batch_of, grow

WINDOWED = replace(CONFIG, window=9)
TEXTS = (5, 70, 23)


def decoder_of(config=CONFIG, *, static=False):
    """A decoder with torch's operations; `static`: over fixed sizes, but not compiled."""
    decoder = Decoder.from_config(config, seed=1, kernels=False)
    if static:
        static_pass = decoder.compile()
        static_pass._run = static_pass._whole
    return decoder


def filled(decoder, rows=4):
    cache = decoder.new_cache(rows, 150)
    for row, length in enumerate(TEXTS):
        prefill(decoder, cache, row, np.arange(length) * 7 % CONFIG.vocab_size, chunk=200)
    return cache


@pytest.mark.parametrize(
    ("counts", "length", "size"),
    [
        ([1], 0, Size(rows=1, queries=1, keys=64)),
        ([1, 3, 2], 60, Size(rows=4, queries=4, keys=64)),
        ([1, 3, 2], 62, Size(rows=4, queries=4, keys=128)),
        ([9], 190, Size(rows=1, queries=16, keys=384)),  # of 256, torch would sum another way
        ([1], 420, Size(rows=1, queries=1, keys=512)),
        ([1] * 5, 700, Size(rows=8, queries=1, keys=704)),  # no more than a row can have
        ([64] * 4, 0, Size(rows=4, queries=64, keys=64)),
        ([MOST_NODES + 1], 0, None),
        ([100, 1, 1], 0, None),
    ],
)
def test_a_batch_has_the_next_size(counts, length, size):
    cache = Decoder.from_config(CONFIG, kernels=False).new_cache(8, 704)
    cache.lengths[:] = length
    texts = [[1] * count for count in counts]
    assert size_for(chains(np.arange(len(counts)), texts), cache) == size


def test_the_buffers_stay_where_they_are():
    decoder = decoder_of()
    cache = filled(decoder)
    inputs = StaticInputs(Size(rows=4, queries=2, keys=128), 2, None, torch.device("cpu"))
    buffers = [inputs.tokens, inputs.layout.positions, inputs.layout.slots, inputs.layout.seen]
    before = [buffer.data_ptr() for buffer in buffers]
    places = inputs.fill(chains(np.array([2, 0, 1]), [[3], [4, 5], [6]]), cache)
    assert places.tolist() == [0, 2, 3, 4]
    assert inputs.tokens.tolist() == [3, 3, 4, 5, 6, 6, 3, 3]
    assert inputs.layout.positions.tolist() == [23, 23, 5, 6, 70, 70, 23, 23]
    assert inputs.layout.seen.sum(-1).tolist() == [[24, 24], [6, 7], [71, 71], [24, 24]]
    assert [buffer.data_ptr() for buffer in buffers] == before


@pytest.mark.parametrize("config", [CONFIG, WINDOWED])
def test_padding_changes_nothing(config):
    """Ragged trees in two passes of a round: logits, states, and entries after a commit."""
    exact, static = decoder_of(config), decoder_of(config, static=True)
    rng = np.random.default_rng(0)
    trees = [grow(rng, shape, config.vocab_size) for shape in ("binary", "comb", "forest")]
    found = []
    for decoder in (exact, static):
        cache, readout = filled(decoder), Readout(layers=(0, 1, -1))
        parts = []
        for start, stops in ((0, [2, 2, 2]), (2, None)):
            batch = batch_of([2, 0, 1], trees, start=start, stops=stops)
            parts.append(decoder.score(cache, replace(batch, readout=readout)))
        cache.commit(2, np.array(trees[0].path(len(trees[0].parents) - 1)))
        found.append((parts, entries(cache, 2)))
    (some, kept), (others, own) = found
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(other.logits, one.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.states, one.states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own, kept, rtol=1e-4, atol=1e-5)


def test_wanted_nodes_and_rows_that_take_turns():
    """The same buffers serve other rows, and the logits are those of the nodes asked for."""
    exact, static = decoder_of(), decoder_of(static=True)
    caches = [filled(decoder) for decoder in (exact, static)]
    for rows in ([0, 2], [1, 2], [2, 0]):
        batch = chains(np.array(rows), [[3, 4], [5]], wanted=np.array([2, 0]))
        one, other = (d.score(c, batch) for d, c in zip((exact, static), caches, strict=True))
        torch.testing.assert_close(other.logits, one.logits, rtol=1e-4, atol=1e-5)
    assert [size.keys for size in static._static.sizes] == [64, 128]  # prompts ran without any


def loop_of(decoder, draft, shape):
    drafter = None if shape is NOTHING else ModelDrafter(draft, rows=2, capacity=64)
    return TokenLoop(decoder, drafter, FixedSize(shape), rows=2, max_length=50, scratch=9)


@pytest.mark.slow
def test_the_whole_loop_runs_as_graphs_with_the_same_tokens():
    """No part of a pass waits for the host: torch.compile takes it as one graph, or raises."""
    requests = [
        Request(id=f"{i}", prompt=(1 + i, 2, 3), sampling=Sampling(max_tokens=9), seed=i)
        for i in range(2)
    ]
    draft, compiled = decoder_of(), decoder_of()
    assert isinstance(compiled.compile("aot_eager"), StaticPass)
    for shape in (NOTHING, Shape(depth=3), Shape(depth=3, width=2)):
        tokens = [
            {r.id: r.tokens for r in loop_of(target, draft, shape).run(requests)}
            for target in (decoder_of(), compiled)
        ]
        assert tokens[0] == tokens[1]
    assert {size.queries for size in compiled._static.sizes} >= {1, 4, 8}

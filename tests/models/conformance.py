"""What every target must do, given transformers' model of the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.batch import Batch, chain
from models.errors import InvalidOption
from models.readout import Readout
from tests.models.checkpoints import VOCABULARY, reference
from tests.models.trees import SHAPES, batch_of, grow

TOLERANCE = 1e-4
NONE = np.zeros(0, dtype=np.int64)


def prefill(target, cache, row, tokens, chunk=64):
    """Commit `tokens` to a row in chunks."""
    for begin in range(0, len(tokens), chunk):
        piece = tokens[begin : begin + chunk]
        target.score(cache, chain(row, piece, wanted=NONE))
        cache.commit(row, np.arange(len(piece)))


def assert_near(found, expected):
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=TOLERANCE)


def check_whole_text(target, model):
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 90)
    expected = reference(model, tokens)
    assert expected.abs().max() > 1  # a comparison of numbers near zero would show nothing
    cache = target.new_cache(2, 100)
    assert_near(target.score(cache, chain(1, tokens)).logits, expected)


def check_chunks(target, model, chunk):
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, 60)
    cache = target.new_cache(1, 64)
    found = []
    for begin in range(0, len(tokens), chunk):
        piece = tokens[begin : begin + chunk]
        found.append(target.score(cache, chain(0, piece)).logits)
        cache.commit(0, np.arange(len(piece)))
    assert_near(torch.cat(found), reference(model, tokens))


def check_ragged_chains(target, model):
    rng = np.random.default_rng(2)
    cache = target.new_cache(4, 80)
    texts = [rng.integers(0, VOCABULARY, length) for length in (30, 1, 17, 0)]
    for row, text in enumerate(texts):
        prefill(target, cache, row, text)
    counts = np.array([1, 5, 3, 9])
    pieces = [rng.integers(0, VOCABULARY, count) for count in counts]
    batch = Batch(
        rows=np.arange(4),
        counts=counts,
        tokens=np.concatenate(pieces),
        depths=np.concatenate([np.arange(count) for count in counts]),
        visible=(None,) * 4,
        wanted=np.array([0, 3, 8, 17]),
    )
    whole = [np.concatenate(pair) for pair in zip(texts, pieces, strict=True)]
    every = [reference(model, text)[-n:] for text, n in zip(whole, counts, strict=True)]
    assert_near(target.score(cache, batch).logits, torch.cat(every)[batch.wanted])


def check_trees(target, model):
    """Every shape in one ragged batch, grown level by level, then committed along a path."""
    rng = np.random.default_rng(3)
    trees = [grow(rng, shape, VOCABULARY) for shape in SHAPES]
    texts = [rng.integers(0, VOCABULARY, 5 + 7 * row) for row in range(len(trees))]
    rows = list(range(len(trees)))
    cache = target.new_cache(len(trees), 60)
    for row, text in enumerate(texts):
        prefill(target, cache, row, text)
    expected = [_nodes(model, text, tree) for text, tree in zip(texts, trees, strict=True)]
    whole = target.score(cache, batch_of(rows, trees)).logits
    assert_near(whole, torch.cat(expected))
    for start, stop in ((0, 1), (1, 4), (4, 5)):
        stops = [stop] * len(trees)
        grown = target.score(cache, batch_of(rows, trees, start=start, stops=stops)).logits
        assert_near(grown, torch.cat([logits[start:stop] for logits in expected]))
    for row, (text, tree) in enumerate(zip(texts, trees, strict=True)):
        path = tree.path(4)
        cache.commit(row, np.array(path))
        after = np.concatenate([text, tree.tokens[path], [7]])
        assert cache.lengths[row] == len(after) - 1
        found = target.score(cache, chain(row, after[-1:])).logits
        assert_near(found, reference(model, after)[-1:])


def _nodes(model, text, tree):
    """Logits [n, V] of each node by a pass over its own text."""
    texts = [np.concatenate([text, tree.tokens[tree.path(n)]]) for n in range(len(tree.parents))]
    return torch.stack([reference(model, each)[-1] for each in texts])


def check_moves(target, model):
    """Rows that were moved and cut go on as if they had always been so."""
    rng = np.random.default_rng(4)
    cache = target.new_cache(3, 40)
    first, second = rng.integers(0, VOCABULARY, 20), rng.integers(0, VOCABULARY, 12)
    prefill(target, cache, 0, first)
    prefill(target, cache, 2, second)
    cache.move(2, 0)
    assert cache.lengths.tolist() == [12, 0, 0]
    cache.truncate(0, 9)
    assert cache.lengths[0] == 9
    again = np.concatenate([second[:9], first[:3]])
    assert_near(target.score(cache, chain(0, again[9:])).logits, reference(model, again)[9:])
    assert_near(target.score(cache, chain(2, first[:5])).logits, reference(model, first[:5]))
    prefill(target, cache, 1, first[:7])
    cache.swap(0, 1)
    assert cache.lengths.tolist() == [7, 9, 0]
    assert_near(target.score(cache, chain(1, again[9:])).logits, reference(model, again)[9:])
    assert_near(target.score(cache, chain(0, first[7:])).logits, reference(model, first)[7:])


def check_hidden(target, model):
    tokens = np.random.default_rng(5).integers(0, VOCABULARY, 11)
    with torch.inference_mode():
        output = model(torch.from_numpy(tokens[None]), output_hidden_states=True)
    batch = chain(0, tokens, wanted=np.array([4, 10]))
    last = len(output.hidden_states) - 1
    assert target.num_layers == last
    layers = (*range(last + 1), -1, 1)
    readout = Readout(layers=layers, top_k=3)
    scores = target.score(target.new_cache(1, 16), replace(batch, readout=readout))
    expected = [output.hidden_states[layer][0] for layer in layers]
    assert_near(scores.states, torch.stack(expected, dim=1))
    assert_near(scores.logits, output.logits[0, [4, 10]])
    top = output.logits[0, [4, 10]].log_softmax(-1).topk(3)
    assert_near(scores.top.logprobs, top.values)
    assert torch.equal(scores.top.tokens, top.indices)
    for wrong in (last + 1, -last - 2):
        with pytest.raises(InvalidOption, match=rf"layers=\({wrong},\).*0 to {last}"):
            target.score(target.new_cache(1, 16), replace(batch, readout=Readout(layers=(wrong,))))
    assert target.score(target.new_cache(1, 16), batch).states is None

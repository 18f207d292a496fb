"""Our decoder says what transformers says, whatever the batch, and sees nothing it should not."""

import numpy as np
import pytest
import torch

from models.batch import Batch, chain
from models.compute.linear import has_packed_kernels
from models.compute.x86.kernels import compiled
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.decoder import Decoder
from models.targets.load import load_target
from tests.models import conformance
from tests.models.checkpoints import FAMILIES, VOCABULARY, save
from tests.models.conformance import prefill
from tests.models.entries import entries
from tests.models.trees import batch_of, grow

CONFIG = DecoderConfig(
    architecture="LlamaForCausalLM",
    vocab_size=VOCABULARY,
    width=64,
    inner_width=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    context_length=1024,
)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory, arithmetic_of_module):
    folder = tmp_path_factory.mktemp(request.param)
    model = save(folder, request.param)
    return load_target(folder, dtype=torch.float32, device="cpu"), model


@pytest.fixture(scope="module")
def decoder(arithmetic_of_module):
    return Decoder.from_config(CONFIG, seed=1)


def test_describes_itself(pair):
    target, model = pair
    assert target.vocab_size == VOCABULARY
    assert target.context_length == 512
    assert target.eos_token_ids == (2,)
    assert target.num_parameters == model.num_parameters()
    assert target.architecture == type(model).__name__
    assert not target.adapted


def test_whole_text(pair):
    conformance.check_whole_text(*pair)


@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_chunked_prefill(pair, chunk):
    conformance.check_chunks(*pair, chunk)


def test_ragged_chains(pair):
    conformance.check_ragged_chains(*pair)


def test_trees(pair):
    conformance.check_trees(*pair)


def test_moves(pair):
    conformance.check_moves(*pair)


def test_hidden(pair):
    conformance.check_hidden(*pair)


def test_committed_entries_are_those_of_one_pass(decoder):
    """After ragged tree rounds with random paths, a row's cache is a teacher-forced one."""
    rng = np.random.default_rng(0)
    cache, texts = decoder.new_cache(3, 120), [[], [], []]
    for row, length in enumerate((3, 40, 11)):
        texts[row] = rng.integers(0, VOCABULARY, length).tolist()
        prefill(decoder, cache, row, np.array(texts[row]), chunk=9)
    for shape in ("binary", "star", "comb", "forest", "chain"):
        trees = [grow(rng, shape, VOCABULARY) for _ in texts]
        decoder.score(cache, batch_of([0, 1, 2], trees))
        for row, tree in enumerate(trees):
            path = tree.path(int(rng.integers(len(tree.parents))))[: int(rng.integers(1, 5))]
            cache.commit(row, np.array(path))
            texts[row] += tree.tokens[path].tolist()
    once = decoder.new_cache(3, 120)
    for row, text in enumerate(texts):
        prefill(decoder, once, row, np.array(text), chunk=200)
        length = len(text)
        assert cache.lengths[row] == once.lengths[row] == length
        torch.testing.assert_close(entries(cache, row), entries(once, row), rtol=0, atol=1e-5)


@pytest.mark.parametrize("split", [0, 3])
def test_nodes_see_their_ancestors_alone(decoder, split):
    """Another token elsewhere in the tree changes no bit; another ancestor does."""
    rng = np.random.default_rng(1)
    tree = grow(rng, "comb", VOCABULARY)
    text = rng.integers(0, VOCABULARY, 20)

    def logits(tokens):
        cache = decoder.new_cache(1, 64)
        prefill(decoder, cache, 0, text)
        changed = type(tree)(tokens, tree.parents)
        parts = []
        for start, stop in ((0, split), (split, len(tokens))):
            if stop > start:
                batch = batch_of([0], [changed], start=start, stops=[stop])
                parts.append(decoder.score(cache, batch).logits)
        return torch.cat(parts)

    before = logits(tree.tokens)
    for node in range(len(tree.parents)):
        tokens = tree.tokens.copy()
        tokens[node] = (tokens[node] + 1) % VOCABULARY
        after = logits(tokens)
        for other in range(len(tree.parents)):
            same = torch.equal(before[other], after[other])
            assert same == (node not in tree.path(other)), (node, other)


def test_rejected_entries_are_never_read(decoder):
    """A row that drafted and lost goes on bit for bit as one that never drafted."""
    rng = np.random.default_rng(2)
    text, nodes = rng.integers(0, VOCABULARY, 21), grow(rng, "forest", VOCABULARY)
    results = []
    for drafts in (False, True):
        cache = decoder.new_cache(1, 64)
        prefill(decoder, cache, 0, text)
        if drafts:
            decoder.score(cache, batch_of([0], [nodes]))
            cache.commit(0, np.zeros(0, dtype=np.int64))
        results.append(decoder.score(cache, chain(0, text[:3])).logits)
    assert torch.equal(*results)


def test_rows_in_any_order(decoder):
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, VOCABULARY, 4 + row) for row in range(4)]
    cache = decoder.new_cache(4, 64)
    for row, text in enumerate(texts):
        prefill(decoder, cache, row, text)
    rows = [3, 0, 2]
    batch = Batch(
        rows=np.array(rows),
        counts=np.ones(3, dtype=np.int64),
        tokens=np.array([5, 6, 7]),
        depths=np.zeros(3, dtype=np.int64),
        visible=(None,) * 3,
    )
    found = decoder.score(cache, batch).logits
    for index, row in enumerate(rows):
        alone = decoder.score(cache, chain(row, batch.tokens[index : index + 1])).logits
        torch.testing.assert_close(found[index], alone[0], rtol=0, atol=1e-5)


def test_nothing_wanted_gives_no_logits(decoder):
    scores = decoder.score(
        decoder.new_cache(1, 8), chain(0, np.array([1, 2]), wanted=np.array([], int))
    )
    assert scores.logits.shape == (0, VOCABULARY)


@pytest.mark.skipif(not has_packed_kernels(), reason="this torch has no packed linear layers")
@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_scores_the_same_alone_and_among_others(dtype):
    """Plain decoding, chains of any length, any prefill chunk: the same bits where it is steady.

    The order of torch's sums is the library's choice: there the results must be near.
    """
    decoder, tokens = Decoder.from_config(CONFIG, dtype=dtype), _text(260)
    cache = decoder.new_cache(2, 320)
    prefill(decoder, cache, 0, tokens[:180])
    expected = _in_pieces(decoder, cache, 0, tokens[180:], 1)
    for size in (2, 5, 16, 80):
        cache.truncate(1, 0)
        prefill(decoder, cache, 1, tokens[:180], chunk=33)
        found = _in_pieces(decoder, cache, 1, tokens[180:], size)
        if decoder.steady:
            assert torch.equal(found, expected)
        near = 1e-5 if dtype == torch.float32 else 0.1
        torch.testing.assert_close(found, expected, rtol=0, atol=near)


@pytest.mark.skipif(not compiled(), reason="no compiled kernels here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["star", "binary", "forest", "comb"])
def test_a_tree_scores_its_paths_to_the_bit(shape, dtype):
    """What makes drafting with trees change no token: its nodes are plain decoding's passes."""
    decoder, rng = Decoder.from_config(CONFIG, seed=2, dtype=dtype), np.random.default_rng(5)
    tree, cache = grow(rng, shape, VOCABULARY), decoder.new_cache(2, 120)
    for row in (0, 1):
        prefill(decoder, cache, row, _text(70))
    drafted = decoder.score(cache, batch_of([0], [tree])).logits
    for node in range(len(tree.parents)):
        cache.truncate(1, 70)
        path = tree.path(node)
        plain = _in_pieces(decoder, cache, 1, tree.tokens[path], 1)
        assert torch.equal(drafted[path], plain)


def _in_pieces(decoder, cache, row, tokens, size):
    """Logits of `tokens`, committed `size` at a time."""
    found = []
    for begin in range(0, len(tokens), size):
        piece = tokens[begin : begin + size]
        found.append(decoder.score(cache, chain(row, piece)).logits)
        cache.commit(row, np.arange(len(piece)))
    return torch.cat(found)


def _text(length):
    return np.random.default_rng(9).integers(0, VOCABULARY, length)


@pytest.mark.skipif(not compiled(), reason="no compiled kernels here")
@pytest.mark.parametrize(
    ("counts", "depths", "tokens", "told"),
    [
        ([2], [0], [5], "row 0: 2 nodes"),
        ([1], [0, 1], [5, 6], "nodes of all rows: 1; wanted: 2"),
        ([2], [0, 1], [5], "tokens: 1; wanted: 2"),
    ],
)
def test_a_batch_that_does_not_fit_together_is_refused(counts, depths, tokens, told):
    decoder = Decoder.from_config(CONFIG)
    batch = Batch(
        rows=np.array([0]),
        counts=np.array(counts),
        depths=np.array(depths),
        tokens=np.array(tokens),
        visible=(None,),
    )
    with pytest.raises(ValueError, match=told):
        decoder.score(decoder.new_cache(1, 8), batch)

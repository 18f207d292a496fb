"""The compiled kernels' promise, to the bit: any batch, draft, tree, thread count and x86 CPU.

The weights are made from integers by products alone, so that the digests below are known answers:
a machine of another kind that runs these tests shows that it computes the same. A change of the
order of sums changes them, and with them what a seed stands for in every row written before.
"""

import hashlib
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch

from models.batch import chain, chains
from models.compute.x86.kernels import compiled
from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.requests.request import Request, Sampling
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.weights import assemble, shapes
from tests.models.guessing import Prophet
from tests.models.hashed import hashed
from tests.models.looping import loop_of, run_alone
from tests.models.trees import batch_of, grow

pytestmark = pytest.mark.skipif(not compiled(), reason="no compiled kernels here")

VOCAB = 301
KINDS = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "float16": (torch.float16, None),
    "window": (torch.float32, 9),
}
# sha256 of the logits of one text, and of what plain decoding makes of the requests.
LOGITS = {
    "float32": "f745601e277087883028b30ddaf4c7198e3d2a28594b47fc6a843bb54dcd32fb",
    "bfloat16": "561c2a58f1406ea868c7bfca35349c9b340097a9f9a7be6db6c4481614c6271e",
    "float16": "ce65e26d6aede7dd0a0323876ecbd793b3c8f3bc7a1c25d5507cf87042a5a088",
    "window": "fa11f01a239c4e6f8f73b2c530965159c774e4dcdf9458dd6d3e4121c814d466",
}
COMPLETIONS = {
    "float32": "d0855212b60bde45b47ba1795b79e872de26aecacb4dcd83b1e0a7c521bf9965",
    "bfloat16": "d0855212b60bde45b47ba1795b79e872de26aecacb4dcd83b1e0a7c521bf9965",
    "float16": "d0855212b60bde45b47ba1795b79e872de26aecacb4dcd83b1e0a7c521bf9965",
    "window": "a0b57c144a65a9fbbbd0714db8c1a91b6629939890e5316d5ba50624ff11e051",
}


@cache
def decoder_of(kind):
    dtype, window = KINDS[kind]
    config = DecoderConfig(
        architecture="LlamaForCausalLM",
        vocab_size=VOCAB,
        width=96,
        inner_width=168,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=24,
        context_length=256,
        qkv_bias=True,
        qk_norm=True,
        window=window,
        eos_token_ids=(0,),
    )
    cpu, wanted = torch.device("cpu"), shapes(config)
    weights = assemble(config, lambda name: hashed(name, wanted[name]), dtype=dtype, device=cpu)
    return Decoder(config, weights, dtype=dtype, device=cpu)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def decoder(kind):
    return decoder_of(kind)


@contextmanager
def threads(count):
    """torch's thread count, which the kernels follow."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Logits


TEXT = np.random.default_rng(1).integers(1, VOCAB, 80)


@pytest.fixture(scope="module")
def plain_logits(decoder):
    """[80, V], a token a pass."""
    cache, rows = decoder.new_cache(1, 100), []
    for token in TEXT:
        rows.append(decoder.score(cache, chain(0, np.array([token]))).logits)
        cache.commit(0, np.zeros(1, dtype=np.int64))
    return torch.cat(rows)


def test_known_logits(kind, plain_logits):
    assert float(plain_logits.abs().max()) > 3
    assert hashlib.sha256(plain_logits.numpy().tobytes()).hexdigest() == LOGITS[kind]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("rows", [1, 4, 16])
def test_logits_do_not_depend_on_the_company(decoder, plain_logits, rows, count):
    """Rows of other lengths beside it; the whole text, pieces of it, and trees around its path."""
    rng = np.random.default_rng(rows)
    cache = decoder.new_cache(rows, 120)
    lengths = [int(length) for length in rng.integers(1, 70, rows)]
    with threads(count):
        for row, length in enumerate(lengths):
            fill(decoder, cache, row, TEXT[:length])
        pieces = [TEXT[length : length + int(rng.integers(1, 8))] for length in lengths]
        batch = chains(np.arange(rows), [piece.tolist() for piece in pieces])
        assert torch.equal(
            decoder.score(cache, batch).logits, wanted(plain_logits, lengths, pieces)
        )
        trees, paths = zip(*[hidden(rng, TEXT[length:]) for length in lengths], strict=True)
        found = decoder.score(cache, batch_of(list(range(rows)), trees)).logits
        starts = np.cumsum([0, *(len(tree.parents) for tree in trees)])[:-1]
        nodes = np.concatenate([s + p for s, p in zip(starts, paths, strict=True)])
        texts = [TEXT[length : length + len(p)] for length, p in zip(lengths, paths, strict=True)]
        assert torch.equal(found[nodes], wanted(plain_logits, lengths, texts))


def fill(decoder, cache, row, tokens):
    """Commit them in pieces."""
    for piece in np.split(tokens, range(11, len(tokens), 11)):
        decoder.score(cache, chain(row, piece, wanted=np.zeros(0, dtype=np.int64)))
        cache.commit(row, np.arange(len(piece)))


def wanted(plain_logits, lengths, pieces):
    """Of each row's piece behind its length."""
    parts = zip(lengths, pieces, strict=True)
    return torch.cat([plain_logits[length : length + len(piece)] for length, piece in parts])


def hidden(rng, coming):
    """A random tree, and the nodes of one of its paths, whose tokens are those that come."""
    tree = grow(rng, str(rng.choice(["binary", "comb", "forest"])), VOCAB)
    path = np.array(tree.path(len(tree.parents) - 1))
    tree.tokens[path] = coming[: len(path)]
    return tree, path


@pytest.mark.parametrize("count", [1, 2])
def test_a_whole_text_in_one_pass(decoder, plain_logits, count):
    with threads(count):
        assert torch.equal(
            decoder.score(decoder.new_cache(1, 80), chain(0, TEXT)).logits, plain_logits
        )


# Tokens


def requests():
    """Sixteen, of every kind of sampling, which end after different times."""
    settings = (
        {},
        {"temperature": 0},
        {"temperature": 0.7, "top_p": 0.9},
        {"top_k": 20, "min_p": 0.02, "presence_penalty": 0.5},
    )
    rng = np.random.default_rng(6)
    return [
        Request(
            id=str(i),
            prompt=tuple(np.tile(rng.integers(1, VOCAB, 4), 3)[: 5 + i % 7].tolist()),
            sampling=Sampling(max_tokens=5 + 3 * i % 8, logprobs=1, **settings[i % 4]),
            seed=i,
        )
        for i in range(16)
    ]


def told(results):
    return {r.id: (r.tokens, r.finish_reason, r.logprobs) for r in results}


@pytest.fixture(scope="module")
def plain(decoder):
    return run_alone(requests(), target=decoder)


def test_known_completions(kind, plain):
    """Tokens alone: log-probabilities are torch's, whose sums differ between kinds of CPU."""
    text = repr([r.tokens for r in plain]).encode()
    assert hashlib.sha256(text).hexdigest() == COMPLETIONS[kind]


def drafters(plain, draft):
    known = {r.id: r.tokens for r in plain}
    return {
        "plain": (lambda: None, NOTHING),
        "chain": (lambda: ModelDrafter(draft, rows=16, capacity=160), Shape(depth=4)),
        "tree": (lambda: ModelDrafter(draft, rows=16, capacity=160), Shape(depth=3, width=3)),
        "right tree": (lambda: Prophet(known, VOCAB, right=0.8), Shape(depth=4, width=4)),
        "lookup": (LookupDrafter, Shape(depth=6)),
    }


@pytest.mark.parametrize("kind", ["float32", "bfloat16"], indirect=True)
@pytest.mark.parametrize(("rows", "count"), [(1, 1), (4, 1), (16, 1), (1, 2), (16, 2)])
def test_tokens_do_not_depend_on_drafts_batch_and_threads(kind, decoder, plain, rows, count):
    """A decoder in the other dtype drafts: it is right often, but not always."""
    draft = decoder_of({"float32": "bfloat16", "bfloat16": "float32"}[kind])
    some = requests()[: 3 if rows == 1 else 16]
    expected = {r.id: told([r])[r.id] for r in plain}
    with threads(count):
        for name, drafter in drafters(plain, draft).items():
            loop = loop_of(drafter, target=decoder, rows=rows, chunk=6)
            assert told(loop.run(some)) == {r.id: expected[r.id] for r in some}, name
            assert name in ("plain", "lookup") or loop.figures().accepted > 0

"""Attention over a cache, both ways: what each node reads, and what goes into the cache."""

import math

import numpy as np
import pytest
import torch

from models.batch import Batch
from models.compute.attention import open_attention
from models.compute.heads import Heads
from models.compute.x86.kernels import compiled, rms_norm
from models.memory.cache import KVCache
from models.targets.decoder.config import DecoderConfig, RotaryConfig
from models.targets.decoder.rotary import Rotary
from tests.models.entries import entries
from tests.models.trees import batch_of, grow

CAPACITY, LAYER = 150, 1
NEAR = {torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 0.004}
HEADS = [
    Heads(queries=4, keys=2, width=16),
    Heads(queries=3, keys=3, width=64),
    Heads(queries=6, keys=1, width=10, eps=1e-6),
    Heads(queries=2, keys=1, width=24, window=7),
]


def _cache(heads, dtype, lengths):
    """Random committed entries, more of them than one block of keys, in rows of some lengths."""
    config = DecoderConfig(
        architecture="any",
        vocab_size=8,
        width=8,
        inner_width=8,
        num_layers=2,
        num_heads=heads.queries,
        num_kv_heads=heads.keys,
        head_dim=heads.width,
        context_length=CAPACITY,
    )
    cache = KVCache(config, len(lengths), CAPACITY, dtype=dtype, device=torch.device("cpu"))
    cache.kv.copy_(torch.randn(cache.kv.shape, generator=torch.Generator().manual_seed(0)))
    for row in reversed(range(len(lengths))):  # blocks out of order
        assert cache.reserve(row, CAPACITY)
    cache.lengths[:] = lengths
    return cache


def _turned(x, rotation):
    pairs = torch.view_as_complex(x.double().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2)


def _reference(batch, cache, heads, rotary, qkv, norm):
    """[T, Hq D] in float64, one node at a time; also the nodes' keys [T, Hkv, D]."""
    rows = [entries(cache, row, CAPACITY)[LAYER] for row in range(cache.rows)]
    kv, width = torch.stack(rows, 1).double(), heads.width  # [2, rows, Hkv, CAPACITY, D]
    qkv = qkv.double().view(len(qkv), -1, width)
    qk, values = qkv[:, : heads.queries + heads.keys], qkv[:, heads.queries + heads.keys :]
    if norm is not None:
        qk = rms_norm(qk.float(), norm, heads.eps).double()
    results, written, node = [], [], 0
    for row, count, visible in zip(batch.rows, batch.counts, batch.visible, strict=True):
        first = cache.lengths[row] + batch.scratch
        for line in range(count):
            position = int(cache.lengths[row] + batch.depths[node])
            turned = qk[node] if rotary is None else _turned(qk[node], rotary.table[position])
            written.append(turned[heads.queries :])
            kv[0, row, :, first + line] = turned[heads.queries :].to(cache.kv.dtype).double()
            kv[1, row, :, first + line] = values[node]
            slots = list(range(cache.lengths[row]))
            slots += [int(cache.lengths[row] + s) for s in np.flatnonzero(visible[line])]
            if heads.window is not None:  # of a path, positions follow each other
                slots = slots[-heads.window :]
            for query in range(heads.queries):
                keys, own = kv[:, row, query % heads.keys, slots]
                scores = keys @ turned[query] / math.sqrt(width)
                results.append(scores.softmax(0) @ own)
            node += 1
    return torch.stack(results).view(node, -1), torch.stack(written)


def _qkv(nodes, heads, dtype):
    size = (heads.queries + 2 * heads.keys) * heads.width
    return torch.randn(nodes, size, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("turning", [True, False])
@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize("heads", HEADS)
def test_a_node_reads_its_ancestors_and_the_committed(heads, dtype, turning):
    rng = np.random.default_rng(0)
    rotary = Rotary(RotaryConfig(), heads.width, torch.device("cpu")) if turning else None
    if rotary is not None:
        rotary.reserve(CAPACITY)
    norm = torch.rand(heads.queries + heads.keys, heads.width) + 0.5 if heads.eps else None
    cache = _cache(heads, dtype, [3, 70, 0])
    trees = [grow(rng, shape, 8) for shape in ("binary", "comb", "forest")]
    for start, stops in ((0, [2, 2, 2]), (2, None)):
        batch = batch_of([2, 0, 1], trees, start=start, stops=stops)
        qkv = _qkv(len(batch.tokens), heads, dtype)
        wanted, keys = _reference(batch, cache, heads, rotary, qkv, norm)
        found = open_attention(batch, cache, heads, rotary)(LAYER, qkv.clone(), norm)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=NEAR[dtype], atol=NEAR[dtype])
        slot = cache.lengths[batch.rows[0]] + start
        own = entries(cache, batch.rows[0], slot + batch.counts[0])[LAYER, 0, :, slot:]
        torch.testing.assert_close(
            own.transpose(0, 1).double(),
            keys[: batch.counts[0]],
            rtol=NEAR[dtype],
            atol=NEAR[dtype],
        )


@pytest.mark.skipif(not compiled(), reason="no compiled kernels here")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", list(NEAR))
def test_a_node_has_the_same_bits_in_every_tree_and_chain(dtype, threads):
    """Its ancestors in other slots, other rows beside it, other threads: nothing changes."""
    heads, rng, before = HEADS[1], np.random.default_rng(3), torch.get_num_threads()
    trees = [grow(rng, shape, 8) for shape in ("binary", "comb", "forest")]
    batch, cache = batch_of([2, 0, 1], trees), _cache(heads, dtype, [100, 60, 64])
    qkv = _qkv(len(batch.tokens), heads, dtype)
    torch.set_num_threads(threads)
    try:
        together = open_attention(batch, cache, heads, None)(LAYER, qkv, None)
    finally:
        torch.set_num_threads(before)
    starts = np.cumsum(batch.counts) - batch.counts
    for row, start, tree in zip(batch.rows, starts, trees, strict=True):
        path = tree.path(len(tree.parents) - 1)
        alone = Batch(
            rows=np.array([row]),
            counts=np.array([len(path)]),
            tokens=tree.tokens[path],
            depths=np.arange(len(path)),
            visible=(None,),
        )
        nodes = start + np.array(path)
        found = open_attention(alone, cache, heads, None)(LAYER, qkv[nodes], None)
        assert torch.equal(found, together[nodes])

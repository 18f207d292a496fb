"""A split decoder is a target as any other: transformers' logits, and its own in every batch."""

import math

import numpy as np
import pytest
import torch

from models.batch import chain, chains
from models.compute.x86.kernels import compiled
from models.errors import InvalidOption
from models.memory.blocks import BLOCK
from models.targets.decoder.checkpoint import Tensors
from models.targets.decoder.config import parse_config, read_configs
from models.targets.decoder.weights import shapes
from models.targets.load import load_target
from models.targets.split.check import check_ranks
from models.targets.split.parts import Part
from tests.models import conformance
from tests.models.checkpoints import VOCABULARY, save
from tests.models.targets.split.together import split

CHECKS = {
    "whole text": conformance.check_whole_text,
    "chunks": lambda target, model: conformance.check_chunks(target, model, 7),
    "ragged chains": conformance.check_ragged_chains,
    "trees": conformance.check_trees,
    "moves": conformance.check_moves,
    "hidden": conformance.check_hidden,
}


@pytest.fixture(scope="module", params=["llama3", "llama-biased", "mistral-window", "qwen3"])
def pair(request, tmp_path_factory):
    """Tied or not, with biases, a window, norms of queries and keys."""
    folder = tmp_path_factory.mktemp(request.param)
    model = save(folder, request.param)
    with split(folder, 2) as target:
        yield target, model


@pytest.mark.parametrize("check", CHECKS)
def test_conforms(pair, check):
    CHECKS[check](*pair)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save(folder, "qwen2", max_shard_size="60KB")
    return folder


@pytest.mark.parametrize("arithmetic", ["steady", "fast"])
def test_more_ranks_than_key_heads(folder, arithmetic):
    """Four ranks share two key heads."""
    whole = load_target(folder, dtype=torch.float32, device="cpu")
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 50)
    expected = whole.score(whole.new_cache(1, 64), chain(0, tokens)).logits
    with split(folder, 4, arithmetic=arithmetic) as target:
        found = target.score(target.new_cache(1, 64), chain(0, tokens)).logits
        assert target.steady == (arithmetic == "steady" and compiled())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_each_rank_holds_half(folder):
    whole = load_target(folder, dtype=torch.float32, device="cpu")
    cache = whole.new_cache(2, 128)
    with split(folder, 2) as target:
        half = target.new_cache(2, 128)
        assert half.num_bytes == cache.num_bytes / 2
        assert target.bytes_per_entry == whole.bytes_per_entry / 2
        assert target.num_parameters == whole.num_parameters
        for rank in (target, target.followers[1]):
            assert rank._weights.embedding.shape[0] == VOCABULARY / 2


def test_each_rank_reads_half(folder):
    """Of a checkpoint whose norms alone are read by both."""
    config = parse_config(*read_configs(folder))
    tensors, whole = Tensors(folder, config), shapes(config)
    read = []
    for rank in range(2):
        part = Part(config=config, rank=rank, ranks=2)
        found = [part.read(name, tensors.read, tensors.cut) for name in whole]
        read.append(sum(tensor.numel() for tensor in found))
    most = sum(math.prod(shape) for shape in whole.values())
    assert max(read) < 0.51 * most
    assert most <= sum(read) < 1.01 * most


@pytest.mark.skipif(not compiled(), reason="torch's order of sums depends on the batch")
@pytest.mark.parametrize("ranks", [2, 4])
def test_same_bits_in_every_batch(folder, ranks):
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, VOCABULARY, length).tolist() for length in (9, 1, 33)]
    with split(folder, ranks) as target:
        together = target.score(target.new_cache(3, 64), chains(np.arange(3), texts)).logits
        alone = [
            target.score(target.new_cache(1, 64), chain(0, np.array(text))).logits for text in texts
        ]
    assert torch.equal(together, torch.cat(alone))


def test_rows_that_share_blocks(folder):
    """Entries are copied on all ranks: of a part of a block, and after a truncation."""
    rng = np.random.default_rng(2)
    text = rng.integers(0, VOCABULARY, BLOCK + 40)
    with split(folder, 2) as target:
        cache = target.new_cache(3, 3 * BLOCK)
        cache.begin(0, text.tolist())
        conformance.prefill(target, cache, 0, text)
        expected = target.score(cache, chain(0, text[:1])).logits
        assert cache.begin(1, text.tolist()) == len(text) - 1
        target.score(cache, chain(1, text[-1:]))
        cache.commit(1, np.arange(1))
        assert torch.equal(target.score(cache, chain(1, text[:1])).logits, expected)
        cache.truncate(1, BLOCK - 5)
        rest = text[BLOCK - 5 :]
        target.score(cache, chain(1, rest))
        cache.commit(1, np.arange(len(rest)))
        assert torch.equal(target.score(cache, chain(1, text[:1])).logits, expected)


def test_caches_that_are_dropped_are_dropped_everywhere(folder):
    with split(folder, 2) as target:
        caches = [target.new_cache(1, 64) for _ in range(3)]
        del caches[1:]
        target.score(caches[0], chain(0, np.array([1, 2])))
        assert target._dropped == []


@pytest.mark.parametrize("ranks", [3, 8])
def test_a_number_of_ranks_that_does_not_fit(folder, ranks):
    with pytest.raises(InvalidOption, match=r"one of 1, 2, 4 with this target \(4 query heads"):
        check_ranks(folder, ranks)

"""Any other model through transformers: the same contract, with and without a cache of its own."""

import pytest
import torch

from models.errors import UnsupportedCheckpoint
from models.targets.adapted.adapter import AdaptedTarget
from models.targets.load import load_target
from tests.models import conformance
from tests.models.checkpoints import OTHERS, VOCABULARY, save


@pytest.fixture(scope="module", params=OTHERS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = save(folder, request.param)
    return load_target(folder, dtype=torch.float32, device="cpu"), model


def test_describes_itself(pair):
    target, model = pair
    assert isinstance(target, AdaptedTarget)
    assert target.adapted
    assert target.vocab_size == VOCABULARY
    assert target.eos_token_ids == (2,)
    assert target.num_parameters == model.num_parameters()
    assert target.architecture == type(model).__name__


def test_cache_size_is_known(pair):
    target, model = pair
    if "Mamba" in target.architecture:  # its state cannot be cut back: every text is run anew
        assert target.new_cache(3, 50).num_bytes == 0
        return
    heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    width = model.config.hidden_size * heads // model.config.num_attention_heads
    entry = 2 * model.config.num_hidden_layers * width * 4
    assert target.new_cache(3, 50).num_bytes == 3 * 50 * entry


def test_whole_text(pair):
    conformance.check_whole_text(*pair)


@pytest.mark.parametrize("chunk", [1, 7])
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


def test_lost_tensors_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    save(tmp_path, "gpt2")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["transformer.h.0.mlp.c_fc.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpoint, match=r"mlp\.c_fc\.weight"):
        load_target(tmp_path, dtype=torch.float32, device="cpu")

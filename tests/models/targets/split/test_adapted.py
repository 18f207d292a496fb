"""Models that transformers runs, split by its plans: the same logits, half of the matrices each."""

import json

import numpy as np
import pytest
import torch

from models.batch import chain
from models.engine import EngineConfig, build_loop
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import Request, Sampling
from models.targets.decoder.checkpoint import tensor_files
from models.targets.load import load_target
from models.targets.split import plan
from models.targets.split.adapted_parts import Plan, _read_part
from models.targets.split.check import check_ranks
from models.targets.split.styles import STYLES
from tests.models import conformance
from tests.models.checkpoints import PLANNED, VOCABULARY, save
from tests.models.targets.split.together import groups_of, split_adapted

CHECKS = {
    "whole text": conformance.check_whole_text,
    "chunks": lambda target, model: conformance.check_chunks(target, model, 7),
    "ragged chains": conformance.check_ragged_chains,
    "trees": conformance.check_trees,
    "moves": conformance.check_moves,
    "hidden": conformance.check_hidden,
}
DRAFTERS = {"none": {}, "lookup": {}, "model": {"draft_tokens": 3, "draft_width": 2}}


@pytest.fixture(scope="module", params=PLANNED)
def pair(request, tmp_path_factory):
    """Heads or only matrices are split, tied or not, with biases or not."""
    folder = tmp_path_factory.mktemp(request.param)
    model = save(folder, request.param)
    with split_adapted(folder) as target:
        yield target, model


@pytest.mark.parametrize("check", CHECKS)
def test_conforms(pair, check):
    CHECKS[check](*pair)


def test_describes_itself(pair):
    target, model = pair
    assert target.adapted
    assert not target.steady
    assert target.architecture == type(model).__name__
    assert target.num_parameters == model.num_parameters()


def test_each_rank_holds_half_of_the_matrices(pair):
    target, model = pair
    layers = [name for name, weight in model.named_parameters() if "layers." in name]
    whole = sum(model.get_parameter(name).numel() for name in layers)
    for part in target.parts:
        assert sum(part.get_parameter(name).numel() for name in layers) < 0.52 * whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four query heads, two key heads."""
    folder = tmp_path_factory.mktemp("gemma")
    save(folder, "gemma", max_shard_size="60KB")
    return folder


def test_four_ranks(tmp_path):
    model = save(tmp_path, "gpt-neox")
    with split_adapted(tmp_path, 4) as target:
        conformance.check_whole_text(target, model)
        conformance.check_chunks(target, model, 7)


def test_each_rank_reads_half(folder):
    """Of a checkpoint whose norms alone are read by both."""
    model, files = save_again(folder), tensor_files(folder)
    parted = Plan(model, folder, files)
    for group in groups_of(2):
        parts = [_read_part(file, name, parted, group) for name, file in files.items()]
        assert sum(part.numel() for part in parts) < 0.51 * model.num_parameters()


def save_again(folder):
    """The model of `folder`."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_the_cache_is_split_with_the_heads(folder):
    whole = load_target(folder, dtype=torch.float32, device="cpu")
    with split_adapted(folder) as target:
        assert target.bytes_per_entry == whole.bytes_per_entry / 2 > 0


def requests():
    samplings = [Sampling(max_tokens=10, temperature=t) for t in (0.0, 0.9)]
    prompts = [tuple((7 * i + j) % VOCABULARY for j in range(3 + 9 * i)) for i in range(3)]
    return [
        Request(id=f"r{i}", prompt=prompt, sampling=samplings[i % 2], seed=i)
        for i, prompt in enumerate(prompts)
    ]


def tokens_of(loop):
    return {result.id: result.tokens for result in loop.run(requests())}


def test_tokens_are_those_of_one_process_whatever_drafts(folder, tmp_path):
    save(tmp_path, "llama3", seed=1)
    fixed = {"target": str(folder), "device": "cpu", "batch_size": 3, "max_length": 128}
    plain = tokens_of(build_loop(EngineConfig(**fixed)))
    with split_adapted(folder) as target:
        for drafter, options in DRAFTERS.items():
            name = str(tmp_path) if drafter == "model" else drafter
            loop = build_loop(EngineConfig(**fixed, drafter=name, **options), target=target)
            assert tokens_of(loop) == plain
            assert loop.describe()["arithmetic"] == "torch"


def test_caches_that_are_dropped_are_dropped_everywhere(folder):
    with split_adapted(folder) as target:
        caches = [target.new_cache(1, 64) for _ in range(2)]
        for cache in caches:
            target.score(cache, chain(0, np.array([1, 2])))
        del caches[1:], cache
        assert target._dropped == [1]
        target.score(caches[0], chain(0, np.array([3])))
        assert target._dropped == []


def test_a_number_of_ranks_that_does_not_fit(folder):
    told = r"one of 1, 2 with this target \(96 inner width, 4 query heads, 2 key heads\)"
    for ranks in (3, 4):
        with pytest.raises(InvalidOption, match=told):
            check_ranks(folder, ranks)


def test_families_without_a_plan(tmp_path):
    save(tmp_path, "gpt2")
    check_ranks(tmp_path, 1)
    with pytest.raises(InvalidOption, match="no plan to split models of type 'gpt2'"):
        check_ranks(tmp_path, 2)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("mixtral", "'mixtral' has 'moe_tp_experts', which is not supported"),
        ("doge", "'doge' is not supported"),
    ],
)
def test_plans_that_are_not_supported(tmp_path, kind, told):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(InvalidOption, match=told):
        check_ranks(tmp_path, 2)


def test_a_checkpoint_with_other_names(folder, tmp_path):
    model, files = save_again(folder), tensor_files(folder)
    del files["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(UnsupportedCheckpoint, match=r"no tensor model\.layers\.1\.mlp\.up_proj"):
        Plan(model, tmp_path, files)


def test_the_styles_are_those_that_are_accepted():
    assert set(plan.STYLES) == set(STYLES)

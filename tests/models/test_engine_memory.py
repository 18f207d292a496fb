"""A context of 128k tokens within a memory budget, for the target alone and with a draft model."""

import json
import re

import pytest
import torch

from models.drafting.draft_models.draft_model import ModelDrafter
from models.engine import EngineConfig, build_loop
from models.errors import InvalidOption, InvalidRequest, NoRoom
from models.requests.request import Request, Sampling
from tests.models import checkpoints

CONTEXT = 131_072
BYTES_PER_ENTRY = 2 * 3 * 2 * 16 * 4  # keys and values, layers, heads, width, float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("target")
    checkpoints.save(made, "llama3")
    config = json.loads((made / "config.json").read_text())
    config["max_position_embeddings"] = CONTEXT
    (made / "config.json").write_text(json.dumps(config))
    return str(made)


def request(length, max_tokens=9):
    prompt = tuple(i * i % checkpoints.VOCABULARY for i in range(length))
    return Request(
        id="a", prompt=prompt, sampling=Sampling(max_tokens=max_tokens, ignore_eos=True), seed=3
    )


def test_default_options_fit_the_budget(folder):
    loop = build_loop(EngineConfig(target=folder, memory="1MiB"))
    assert loop.num_rows == 8
    assert 2**20 - 64 * BYTES_PER_ENTRY < loop.cache_bytes <= 2**20
    assert loop.max_length == 2**20 // BYTES_PER_ENTRY // 64 * 64 - 1  # less a root
    with torch.inference_mode():
        (result,) = loop.run([request(600)])
    whole = build_loop(EngineConfig(target=folder, max_length=700))
    with torch.inference_mode():
        assert result.tokens == whole.run([request(600)])[0].tokens
    with pytest.raises(InvalidRequest, match=f"at most {loop.max_length} fit"):
        loop.submit(request(loop.max_length))


@pytest.mark.parametrize("drafter", ["none", "model"])
def test_a_request_too_long_for_the_budget_is_told_what_would_do(folder, drafter):
    drafter = folder if drafter == "model" else drafter
    loop = build_loop(EngineConfig(target=folder, memory="1MiB", drafter=drafter))
    with pytest.raises(NoRoom, match=r"set --memory to \d+MiB or more$") as found:
        loop.submit(request(9000))
    wanted = str(found.value).split()[-3]
    enough = build_loop(EngineConfig(target=folder, memory=wanted, drafter=drafter))
    enough.submit(request(9000))
    less = f"{int(wanted.removesuffix('MiB')) - 1}MiB"
    with pytest.raises(InvalidRequest, match="set --memory"):
        build_loop(EngineConfig(target=folder, memory=less, drafter=drafter)).submit(request(9000))


def test_no_memory_is_advised_beyond_the_context_or_max_length(folder):
    for config, length in (
        (EngineConfig(target=folder, memory="1MiB"), CONTEXT),
        (EngineConfig(target=folder, memory="1MiB", max_length=500), 500),
    ):
        with pytest.raises(InvalidRequest, match=r"fit$") as found:
            build_loop(config).submit(request(length))
        assert found.type is InvalidRequest


def test_a_draft_model_shares_the_budget(folder):
    loop = build_loop(EngineConfig(target=folder, drafter=folder, memory="1MiB"))
    drafter = loop.drafter
    assert isinstance(drafter, ModelDrafter)
    assert loop.cache_bytes == drafter._cache.num_bytes
    assert loop.cache_bytes + drafter._cache.num_bytes <= 2**20


def test_a_budget_below_the_wanted_length_is_refused(folder):
    with pytest.raises(InvalidOption, match=r"memory='1MiB'.*more: .* room for 1343 .*; 9000 are"):
        build_loop(EngineConfig(target=folder, memory="1MiB", max_length=9000))
    with pytest.raises(InvalidOption, match="memory='2KB'"):
        build_loop(EngineConfig(target=folder, memory="2KB"))


@pytest.mark.parametrize("drafter", ["none", "model"])
@pytest.mark.parametrize("length", [None, 9000])
def test_a_budget_that_is_refused_is_told_the_least_that_would_do(folder, drafter, length):
    given = {"target": folder, "drafter": folder if drafter == "model" else drafter}
    given |= {"max_length": length}
    with pytest.raises(InvalidOption, match=r"accepted: \d+MiB or more: the KV") as found:
        build_loop(EngineConfig(**given, memory="1KB"))
    (least,) = re.findall(r"(\d+)MiB or more", str(found.value))
    assert build_loop(EngineConfig(**given, memory=f"{least}MiB")).max_length >= (length or 2)
    less = f"{int(least) * 2**20 - 2**20}B" if int(least) > 1 else "1KB"
    with pytest.raises(InvalidOption, match=f"{least}MiB or more"):
        build_loop(EngineConfig(**given, memory=less))

"""Checkpoints in all the ways they come, and the broken ones by name."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.batch import chain
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.targets.load import load_target
from tests.models.checkpoints import reference, save
from tests.models.conformance import assert_near

TOKENS = np.arange(3, 20)
FILE = "model.safetensors"


def _load(folder, **options):
    return load_target(folder, **{"dtype": torch.float32, "device": "cpu", **options})


def _logits(target):
    return target.score(target.new_cache(1, 32), chain(0, TOKENS)).logits


def _edit_config(folder, **fields):
    path = folder / "config.json"
    raw = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in raw.items() if value != "absent"}))


def _edit_tensors(folder, edit):
    tensors = load_file(folder / FILE)
    edit(tensors)
    save_file(tensors, folder / FILE)


def test_a_folder_that_is_not_there_is_told_with_the_one_that_may_be_meant(tmp_path):
    (tmp_path / "text-target").mkdir()
    (tmp_path / "text-target.txt").write_text("no folder")
    with pytest.raises(
        UnsupportedCheckpoint, match=r"no such folder; did you mean .*text-target\?"
    ):
        _load(tmp_path / "text-targt")
    with pytest.raises(UnsupportedCheckpoint, match="no such folder; models are read from folders"):
        _load("owner/model")
    with pytest.raises(UnsupportedCheckpoint, match="it is a file"):
        _load(tmp_path / "text-target.txt")


@pytest.mark.parametrize("family", ["llama2", "qwen2-tied"])
def test_sharded(tmp_path, family):
    model = save(tmp_path, family, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_near(_logits(_load(tmp_path)), reference(model, TOKENS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("arithmetic")
def test_half_precision(tmp_path, dtype):
    """Near the float32 model, about as near as transformers in the same dtype."""
    model = save(tmp_path, "llama3")
    exact = reference(model, TOKENS)
    target = _load(tmp_path, dtype=dtype)
    assert target.dtype == dtype
    assert target.new_cache(1, 8).kv.dtype == dtype
    ours = (_logits(target) - exact).abs().max()
    theirs = (reference(model.to(dtype), TOKENS) - exact).abs().max()
    assert ours < 2 * theirs


def test_older_spelling_of_rotary_scaling(tmp_path):
    model = save(tmp_path, "llama3")
    raw = json.loads((tmp_path / "config.json").read_text())
    scaling = raw["rope_parameters"]
    theta = scaling.pop("rope_theta")
    _edit_config(tmp_path, rope_parameters="absent", rope_theta=theta, rope_scaling=scaling)
    assert_near(_logits(_load(tmp_path)), reference(model, TOKENS))


def test_ends_from_the_generation_config_come_first(tmp_path):
    save(tmp_path, "llama2")
    assert _load(tmp_path).eos_token_ids == (2,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [4, 9]}')
    assert _load(tmp_path).eos_token_ids == (4, 9)


def test_a_missing_folder_or_config(tmp_path):
    with pytest.raises(UnsupportedCheckpoint, match="nowhere is not a folder"):
        _load(tmp_path / "nowhere")
    with pytest.raises(UnsupportedCheckpoint, match=r"config\.json is missing"):
        _load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnsupportedCheckpoint, match=r"config\.json cannot be read"):
        _load(tmp_path)


@pytest.mark.parametrize("family", ["llama2", "gpt2"])
def test_pickles_are_never_loaded(tmp_path, family):
    save(tmp_path, family)
    (tmp_path / FILE).unlink()
    with pytest.raises(UnsupportedCheckpoint, match=r"neither model\.safetensors"):
        _load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsupportedCheckpoint, match=r"pytorch_model\.bin may hold code"):
        _load(tmp_path)


def test_a_missing_shard(tmp_path):
    save(tmp_path, "llama2", max_shard_size="100KB")
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(UnsupportedCheckpoint, match=f"{lost.name} is missing"):
        _load(tmp_path)


def test_a_cut_file(tmp_path):
    save(tmp_path, "llama2")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsupportedCheckpoint, match="not a whole safetensors file"):
        _load(tmp_path)


def test_a_missing_tensor(tmp_path):
    save(tmp_path, "llama2")
    name = "model.layers.1.self_attn.v_proj.weight"
    _edit_tensors(tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(UnsupportedCheckpoint, match=f"lacks the tensor {name}"):
        _load(tmp_path)


def test_a_wrong_shape(tmp_path):
    save(tmp_path, "llama2")
    _edit_tensors(tmp_path, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))
    with pytest.raises(UnsupportedCheckpoint, match=r"model\.norm\.weight is \(3,\).*\(64,\)"):
        _load(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": "absent"}, "hidden_size is missing"),
        ({"num_hidden_layers": "three"}, "num_hidden_layers is 'three'"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 does not divide 4"),
    ],
)
def test_a_wrong_field(tmp_path, fields, message):
    save(tmp_path, "llama2")
    _edit_config(tmp_path, **fields)
    with pytest.raises(UnsupportedCheckpoint, match=message):
        _load(tmp_path)


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "LlamaForSequenceClassification"])
def test_no_language_model(tmp_path, architecture):
    save(tmp_path, "llama2")
    _edit_config(tmp_path, architectures=[architecture])
    with pytest.raises(UnsupportedCheckpoint, match=f"{architecture} is no causal"):
        _load(tmp_path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    save(tmp_path, "llama2")
    _edit_config(
        tmp_path,
        model_type="strange",
        architectures=["StrangeForCausalLM"],
        auto_map={"AutoModelForCausalLM": "strange.Strange"},
    )
    (tmp_path / "strange.py").write_text("raise SystemExit('was run')")
    with pytest.raises(UnsupportedCheckpoint, match="StrangeForCausalLM"):
        _load(tmp_path)


def test_unknown_variants_of_known_families_go_through_transformers(tmp_path):
    """A scaling of rotary positions that we lack: right through the adapter, not wrong here."""
    model = save(tmp_path, "llama2")
    yarn = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0}
    yarn["original_max_position_embeddings"] = 128
    _edit_config(tmp_path, rope_parameters=yarn)
    target = _load(tmp_path)
    assert target.adapted
    assert not torch.allclose(_logits(target), reference(model, TOKENS), atol=1e-3)


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_a_device_that_is_not_there(tmp_path, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InvalidOption, match=f"device='{device}'"):
        _load(tmp_path, device=device)

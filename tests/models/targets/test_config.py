"""What config.json means, family by family, where no checkpoint is needed to see it."""

import pytest
import torch

from models.targets.decoder import rotary
from models.targets.decoder.config import is_known, parse_config
from models.targets.decoder.rotary import Rotary, frequencies

BASE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}
QWEN2 = {**BASE, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}


def test_defaults():
    config = parse_config(BASE, {})
    assert (config.num_kv_heads, config.head_dim, config.window) == (4, 16, None)
    assert (config.rotary.theta, config.rotary.kind) == (10_000.0, "default")
    assert config.eos_token_ids == ()
    assert not config.tied


@pytest.mark.parametrize(
    ("raw", "window"),
    [
        ({**BASE, "model_type": "mistral"}, 4096),  # transformers' default where the key is absent
        ({**BASE, "model_type": "mistral", "sliding_window": None}, None),
        ({**BASE, "model_type": "mistral", "sliding_window": 77}, 77),
        ({**QWEN2, "sliding_window": 77}, None),
        (
            {**QWEN2, "sliding_window": 7, "use_sliding_window": True, "max_window_layers": 0},
            7,
        ),
        ({**QWEN2, "sliding_window": 7, "layer_types": ["full_attention"] * 4}, None),
    ],
)
def test_window(raw, window):
    assert is_known(raw)
    assert parse_config(raw, {}).window == window


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "gpt2"},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "yarn", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        {"layer_types": ["full_attention", "sliding_attention"] * 2},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
)
def test_what_ours_leaves_to_transformers(fields):
    assert is_known(BASE)
    assert not is_known({**BASE, **fields})


def test_linear_scaling():
    plain = parse_config(BASE, {}).rotary
    scaled = parse_config({**BASE, "rope_scaling": {"type": "linear", "factor": 4.0}}, {}).rotary
    assert torch.equal(frequencies(scaled, 16), frequencies(plain, 16) / 4)


def test_a_longer_rotary_table_keeps_its_rows():
    table = Rotary(parse_config(BASE, {}).rotary, 16, torch.device("cpu"))
    table.reserve(13)
    short = table(torch.arange(13))
    table.reserve(700)
    assert torch.equal(table(torch.arange(13)), short)
    torch.testing.assert_close(short.abs(), torch.ones(13, 1, 8))


def test_a_rotary_table_that_is_computed_in_parts_has_the_rows_of_one(monkeypatch):
    tables = []
    for part in (300, 1000):
        monkeypatch.setattr(rotary, "PART", part)
        made = Rotary(parse_config(BASE, {}).rotary, 16, torch.device("cpu"))
        made.reserve(1000)
        tables.append(made.table)
    assert tables[0].shape == (1000, 8)
    assert torch.equal(*tables)

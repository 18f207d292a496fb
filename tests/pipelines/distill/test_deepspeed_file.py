"""DeepSpeed's configuration at the edge: what is taken, and what is refused with a reason."""

import json

import pytest

from models.errors import InvalidOption
from pipelines.distill.deepspeed_file import read_deepspeed


def read(tmp_path, told, *, batch=64, workers=2):
    file = tmp_path / "deepspeed.json"
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    return read_deepspeed(str(file), batch=batch, workers=workers)


def test_stages_bf16_and_parts_are_taken(tmp_path):
    told = {
        "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "none"}},
        "bf16": {"enabled": True},
        "gradient_accumulation_steps": 4,
        "train_micro_batch_size_per_gpu": 8,
        "train_batch_size": 64,
        "gradient_clipping": 1.0,
    }
    usual = {"fp16": {"enabled": False}, "optimizer": "auto", "scheduler": "auto"}
    found = read(tmp_path, told | usual)
    assert found == told | {"fp16": {"enabled": False}}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("stage: 3", "a JSON file is needed"),
        ([3], "it must hold an object"),
        ({"optimizer": {"type": "Adam"}}, r"optimizer is .*: the optimizer is AdamW; --rate"),
        ({"scheduler": {"type": "WarmupLR"}}, "the rate rises and falls with the step"),
        ({"fp16": {"enabled": True}}, "weights are float32, or bf16"),
        ({"zero": {"stage": 1}}, "accepted are zero_optimization, bf16"),
        ({"zero_optimization": {"stage": 4}}, r"zero_optimization\.stage is 4: one of 0, 1, 2, 3"),
        ({"zero_optimization": 2}, "zero_optimization is 2: an object"),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
            r"offload_optimizer is .*cpu.*are not offloaded",
        ),
        ({"bf16": {"enabled": True}}, "stage 1, 2 or 3 beside it"),
        ({"train_batch_size": 32}, "train_batch_size is 32: --train-batch is 64"),
        ({"gradient_accumulation_steps": 3}, "64 is not 2 workers x 3 parts"),
        ({"gradient_accumulation_steps": 0}, "a whole number, 1 or more"),
        ({"train_micro_batch_size_per_gpu": 64}, "64 samples / 2 workers / 1 parts are 32"),
        ({"gradient_clipping": 5}, r"gradient_clipping is 5: gradients are clipped at 1\.0"),
        ({"zero_allow_untested_optimizer": False}, "it must be true"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path, told, why):
    with pytest.raises(InvalidOption, match=why) as refused:
        read(tmp_path, told)
    assert "deepspeed.json' is not accepted" in str(refused.value)

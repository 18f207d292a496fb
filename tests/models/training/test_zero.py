"""DeepSpeed's stages: one training in legs of other stages and numbers of workers."""

import pytest
import torch
from safetensors.torch import load_file

from models.training.checkpoint import states
from tests.models.training.zero_workers import LEGS, STEPS, run_legs, training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_stages_and_workers_change_within_a_training_but_not_its_curve(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    whole = training()
    steps = [whole.step() for _ in range(STEPS)]
    run_legs(tmp_path)
    files = [tmp_path / f"figures-{leg}.txt" for leg in range(len(LEGS))]
    lines = [line for file in files for line in file.read_text().splitlines()]
    found = torch.tensor([[float(word) for word in line.split()] for line in lines])
    wanted = torch.tensor([[step["loss"], step["gradient_norm"]] for step in steps])
    torch.testing.assert_close(found[:, 0], wanted[:, 0], atol=1e-5, rtol=1e-4)  # losses
    torch.testing.assert_close(found[:, 1], wanted[:, 1], atol=1e-5, rtol=5e-3)
    place = states(tmp_path)[-1]
    for name, model in (("weights", whole.kind.model), ("average", whole.average)):
        tensors = load_file(place / f"{name}.safetensors")
        for key, weight in model.named_parameters():
            torch.testing.assert_close(tensors[key], weight.detach(), atol=2e-4, rtol=1e-3)
    assert {file.suffix for file in place.iterdir()} == {".json", ".safetensors"}

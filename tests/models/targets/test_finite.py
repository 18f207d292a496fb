"""NaN and infinite weights and scores are reported, never decoded."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.batch import Scores
from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import Shape
from models.drafting.sizing.sizing import FixedSize
from models.errors import UnsupportedCheckpoint
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from models.targets.decoder.decoder import Decoder
from models.targets.finite import broken_rows
from models.targets.load import load_target
from tests.models.checkpoints import save
from tests.models.decoders import CONFIG


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_checkpoint_with_a_weight_that_is_no_number_is_refused(tmp_path, value, dtype) -> None:
    save(tmp_path, "llama3")
    file = tmp_path / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 5] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpoint, match=f"1 of the .* tensor {name} are NaN"):
        load_target(tmp_path, dtype=torch.float32, device="cpu")


def test_large_finite_weights_are_numbers(tmp_path) -> None:
    """Their sum overflows."""
    save(tmp_path, "llama3")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"].fill_(3e38)
    save_file(tensors, file, metadata={"format": "pt"})
    load_target(tmp_path, dtype=torch.float32, device="cpu")


def test_a_broken_weight_of_an_adapted_model_is_named(tmp_path) -> None:
    save(tmp_path, "gpt2")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name].view(-1)[-1] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpoint, match=r"1 of the \d+ values of tensor .* are NaN"):
        load_target(tmp_path, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_with_broken_scores_are_found(value) -> None:
    logits = torch.zeros(4, 5)
    logits[:, 2] = -torch.inf  # a token that is never chosen
    assert broken_rows(logits) is None
    logits[1, 0] = value
    logits[3, 4] = value
    found = broken_rows(logits)
    assert found is not None
    assert found.tolist() == [False, True, False, True]


class Overflowing(Decoder):
    """A target whose scores after one token are not numbers."""

    POISON = 7

    def score(self, cache, batch):
        logits = super().score(cache, batch).logits.clone()
        if len(logits) == len(batch.tokens):
            logits[batch.tokens == self.POISON] = torch.nan
        return Scores(logits)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rule", ["match", "rejection"])
def test_only_the_request_that_meets_broken_scores_ends_with_an_error(rule, temperature) -> None:
    target = Overflowing.from_config(CONFIG)
    sampling = Sampling(max_tokens=8, temperature=temperature, logit_bias={7: -1000.0})
    bad = replace(sampling, logit_bias={7: 1000.0})
    requests = [
        Request(id=name, prompt=(1, 2, 1, 2), sampling=asked, seed=3)
        for name, asked in (("good", sampling), ("bad", bad), ("also good", sampling))
    ]
    loop = TokenLoop(
        target,
        LookupDrafter(),
        FixedSize(Shape(depth=3)),
        rows=3,
        max_length=20,
        scratch=4,
        verify=rule,
        name="a/checkpoint",
    )
    results = {result.id: result for result in loop.run(requests)}
    assert results["bad"].finish_reason == "error"
    assert results["bad"].tokens == ()
    assert "target 'a/checkpoint' produced NaN or infinite logits" in str(results["bad"].error)
    assert results["good"].tokens == results["also good"].tokens
    assert len(results["good"].tokens) == 8

"""The demo trainer from end to end, at a size that takes seconds."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples import train_demo_models as demo

ODD_TEXT = "def f(x):\r\n\treturn  x + 1  # é 漢 🎉\n\n    , ok 's"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other stall by seconds when other work has the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train_tiny(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Train both models on a handful of short windows of a few files."""
    train, held = demo.read_corpus(seed=0)
    monkeypatch.setattr(demo, "read_corpus", lambda seed: (train[:40], held[:2]))
    monkeypatch.setattr(demo, "CONTEXT", 64)
    monkeypatch.setattr(demo, "TOKENS_PER_STEP", 128)
    options = ["--output", str(folder / "models"), "--work", str(folder / "work")]
    demo.main([*options, "--device", "cpu", "--steps-scale", "0.01"])
    return folder / "models"


@pytest.mark.slow
def test_writes_two_models_that_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = train_tiny(monkeypatch, tmp_path)
    report = json.loads((output / "report.json").read_text())
    for name, least, most in (("text-target", 19e6, 25e6), ("text-draft", 5e5, 1e6)):
        model = AutoModelForCausalLM.from_pretrained(output / name)
        tokenizer = AutoTokenizer.from_pretrained(output / name)
        assert least < model.num_parameters() < most
        assert report["sizes"][name]["parameters"] == model.num_parameters()
        assert model.dtype == torch.bfloat16
        assert len(tokenizer) == model.config.vocab_size == demo.VOCABULARY
        ids = tokenizer(ODD_TEXT, return_tensors="pt").input_ids  # [1, tokens]
        assert tokenizer.decode(ids[0]) == ODD_TEXT
        assert model(ids).logits.shape == (1, ids.shape[1], demo.VOCABULARY)
    assert 0 < report["held_out"]["alpha"] <= 1


@pytest.mark.slow
def test_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stage cut off in the middle ends with the weights of one that ran through."""
    run = demo.Run(tmp_path, torch.device("cpu"), seed=1, scale=1.0)
    stage = demo.Stage("tiny", steps=4, warm=1, decay=0.5, muon=0.02, adam=1e-3)
    stream = torch.randint(demo.VOCABULARY, (5000,), generator=run.random("stream"))
    monkeypatch.setattr(demo, "TOKENS_PER_STEP", 1024)
    monkeypatch.setattr(demo, "SAVE_SECONDS", 0)
    whole = trained(run, stage, demo.text_loss(run, stream, stage))
    (tmp_path / "tiny.safetensors").unlink()
    with pytest.raises(KeyboardInterrupt):
        trained(run, stage, stopping(demo.text_loss(run, stream, stage), at=2))
    resumed = trained(run, stage, demo.text_loss(run, stream, stage))
    with safe_open(tmp_path / "tiny.safetensors", "pt") as file:
        assert file.metadata()["step"] == "4"
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def trained(run: demo.Run, stage: demo.Stage, loss: demo.Loss) -> list[torch.Tensor]:
    """The weights of a fresh tiny model after the stage."""
    model = demo.make_model(run, hidden=64, layers=1, heads=1, kv=1)
    demo.train(run, stage, model, loss)
    return [weight.detach() for weight in model.parameters()]


def stopping(loss: demo.Loss, at: int) -> demo.Loss:
    """The same loss, but an interrupt when the given step begins."""

    def stops(model: torch.nn.Module, step: int) -> torch.Tensor:
        if step == at:
            raise KeyboardInterrupt
        return loss(model, step)

    return stops

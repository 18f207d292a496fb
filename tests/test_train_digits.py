"""The digits trainer from end to end, at a size that takes seconds."""

import json
from pathlib import Path

import pytest
import torch

from examples import train_digits as demo
from models.targets.load import load_target
from models.tokenizers.load import load_tokenizer


@pytest.mark.slow
def test_writes_models_that_load_and_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, held = (part[torch.arange(48)] for part in demo.read_digits())  # losses are over all
    monkeypatch.setattr(demo, "read_digits", lambda: (data, held))
    monkeypatch.setattr(demo, "BATCH", 4)
    demo.main(["--output", str(tmp_path), "--work", str(tmp_path), "--steps-scale", "0.005"])
    for name, tokens in (("digits-raster", 64), ("digits-scale", 130)):
        report = json.loads((tmp_path / name / "report.json").read_text())
        tokenizer = load_tokenizer(tmp_path / name)
        assert tokenizer.num_tokens == tokens
        assert tokenizer.vocab_size == demo.CODES
        assert 0 < report["tokenizer"]["mean_square_error"] < 4
    tokenizer = load_tokenizer(tmp_path / "digits-raster")
    target = load_target(tmp_path / "digits-raster", dtype=torch.float32)
    assert target.vocab_size == tokenizer.vocab_size
    assert target.context_length == 1 + tokenizer.num_tokens
    codes = target.embed_vectors(tokenizer.codebook())
    assert torch.equal(codes, target.embed(torch.arange(demo.CODES)))
    scale = load_target(tmp_path / "digits-scale", dtype=torch.float32)
    assert scale.schedule.num_positions == load_tokenizer(tmp_path / "digits-scale").num_tokens
    report = json.loads((tmp_path / "digits-scale" / "report.json").read_text())
    assert 0 < report["target"]["held_out_loss"] < 6


def test_the_parts_do_not_overlap_and_are_black_at_minus_one() -> None:
    data, held = demo.read_digits()
    assert len(data) + len(held) == 1797
    assert len(held) > 300
    for part in (data, held):
        assert part.images.shape[1:] == (1, 16, 16)
        assert part.images.min() == -1
        assert part.images.max() == 1
    seen = {image.numpy().tobytes() for image in data.images}
    assert not any(image.numpy().tobytes() in seen for image in held.images)


def test_varied_images_are_the_same_digits_moved_a_little() -> None:
    images = demo.read_digits()[1].images[:64]
    made = demo.varied(images, torch.Generator().manual_seed(0))
    assert made.shape == images.shape
    assert made.min() >= -1
    assert made.max() <= 1 + 1e-5
    ink = ((made + 1).sum() / (images + 1).sum()).item()
    assert 0.85 < ink < 1.15
    moved = (made - images).square().mean().item()
    others = (images.roll(1, 0) - images).square().mean().item()
    assert 0 < moved < 0.4 * others


def test_one_class_in_ten_is_dropped() -> None:
    classes = torch.arange(10).repeat(1000)
    kept = demo.dropped(classes, torch.Generator().manual_seed(0))
    gone = kept == demo.CLASSES
    assert 0.08 < gone.float().mean() < 0.12
    assert torch.equal(kept[~gone], classes[~gone])

"""What an image target's folder says of itself, and folders that do not fit together."""

import json
from pathlib import Path

import pytest

from models.errors import UnsupportedCheckpoint
from models.tokenizers.about import ImageTarget, image_target
from tests.models.tokenizers.tiny_images import VOCABULARY, grid, scales

SIZES = {"model_type": "paceline_any", "vocab_size": VOCABULARY, "num_classes": 3}


def write(folder: Path, **values: object) -> Path:
    config = {name: value for name, value in {**SIZES, **values}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_both_kinds_of_tokenizers(tmp_path: Path) -> None:
    write(tmp_path)
    grid().save(tmp_path / "tokenizer")
    sizes = {"vocab_size": VOCABULARY, "num_classes": 3}
    assert image_target(tmp_path) == ImageTarget(**sizes, num_tokens=16, in_order=True)
    scales().save(tmp_path / "tokenizer")
    assert image_target(tmp_path) == ImageTarget(**sizes, num_tokens=30, in_order=False)


def test_other_targets_are_none_of_images(tmp_path: Path) -> None:
    assert image_target(write(tmp_path, model_type="llama")) is None
    assert image_target(write(tmp_path, model_type=None)) is None


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=r"config\.json is missing"):
        image_target(tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match="'tokenizer' with its image tokenizer"):
        image_target(write(tmp_path))
    (tmp_path / "tokenizer").mkdir()
    write(tmp_path / "tokenizer")
    with pytest.raises(UnsupportedCheckpoint, match="its model_type is 'paceline_any'"):
        image_target(tmp_path)
    grid().save(tmp_path / "tokenizer")
    with pytest.raises(UnsupportedCheckpoint, match="the target has 33 tokens, its tokenizer 32"):
        image_target(write(tmp_path, vocab_size=33))
    with pytest.raises(UnsupportedCheckpoint, match="num_classes is None"):
        image_target(write(tmp_path, num_classes=None))

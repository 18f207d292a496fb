import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import UnsupportedCheckpoint
from models.tokenizers.load import load_tokenizer
from tests.models.tokenizers import tiny_images as tiny


@pytest.fixture
def folder(tmp_path):
    tiny.grid().save(tmp_path)
    return tmp_path


def edit(folder, **values) -> None:
    file = folder / "config.json"
    raw = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"model_type": "llama"}, "holds no image tokenizer: its model_type is 'llama'"),
        ({"vocab_size": "many"}, "vocab_size='many' is of another kind"),
        ({"vocab_size": True}, "vocab_size=True is of another kind"),
        ({"colour": 1}, "unknown field colour; known: conv, image_size"),
        ({"conv": {"chanels": 3}}, "conv: unknown field chanels"),
        ({"conv": {"multipliers": ["a"]}}, "multipliers='a' is of another kind"),
        ({"vocab_size": 33}, r"codes is \(32, 4\), its config makes it \(33, 4\)"),
    ],
)
def test_a_wrong_config_is_told(folder, values, told) -> None:
    edit(folder, **values)
    with pytest.raises(UnsupportedCheckpoint, match=told):
        load_tokenizer(folder)


def test_missing_and_left_over_tensors_are_told(folder) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file({k: v for k, v in tensors.items() if k != "codes"}, file)
    with pytest.raises(UnsupportedCheckpoint, match="lacks the tensor codes"):
        load_tokenizer(folder)
    save_file(tensors | {"more": torch.zeros(1)}, file)
    with pytest.raises(UnsupportedCheckpoint, match="does not belong there: more"):
        load_tokenizer(folder)


def test_broken_files_are_told(folder) -> None:
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(
        UnsupportedCheckpoint, match=r"model\.safetensors cannot be read as safetensors"
    ):
        load_tokenizer(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        UnsupportedCheckpoint, match=r"model\.safetensors cannot be read as safetensors"
    ):
        load_tokenizer(folder)
    with pytest.raises(UnsupportedCheckpoint, match=r"nothing/config\.json is missing"):
        load_tokenizer(folder / "nothing")

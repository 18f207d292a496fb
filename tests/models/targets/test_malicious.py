"""Checkpoints made to do harm are refused, and nothing of them runs."""

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch

from models.errors import UnsupportedCheckpoint
from models.targets.decoder.checkpoint import INDEX, SINGLE, tensor_files
from models.targets.load import load_target
from tests.models.checkpoints import save


class Bomb:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (self.place,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model", "llama2")
    return tmp_path / "model"


def refused(folder: Path, told: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=told):
        load_target(folder, dtype=torch.float32, device="cpu")


def test_a_pickle_that_is_called_safetensors(folder, tmp_path):
    place = tmp_path / "exploded"
    (folder / SINGLE).write_bytes(pickle.dumps(Bomb(place)))
    refused(folder, "is not a whole safetensors file")
    assert not place.exists()


def test_a_pickle_beside(folder, tmp_path):
    (folder / SINGLE).unlink()
    place = tmp_path / "exploded"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(place)))
    refused(folder, "pytorch_model.bin may hold code and is never loaded")
    assert not place.exists()


@pytest.mark.parametrize("size", [2**40, 2**63, 200 * 2**20])
def test_a_header_larger_than_any(folder, size):
    (folder / SINGLE).write_bytes(struct.pack("<Q", size) + b"{}")
    refused(folder, "is not a whole safetensors file")


@pytest.mark.parametrize("spans", [[0, 2**50], [8, 0], [-8, 8], [0, 4]])
def test_tensors_that_lie_outside_of_the_file(folder, spans):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": spans}}).encode()
    (folder / SINGLE).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    refused(folder, "is not a whole safetensors file")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", ".."])
def test_an_index_that_leads_out_of_the_folder(folder, name):
    (folder.parent / "secret.safetensors").write_bytes((folder / SINGLE).read_bytes())
    tensors = tensor_files(folder)
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, name)}))
    refused(folder, "a file of its own folder is needed")


def test_code_beside_the_weights_does_not_run(folder, tmp_path):
    place = tmp_path / "exploded"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(place)!r})\n")
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.E"}}
    (folder / "config.json").write_text(json.dumps(raw))
    refused(folder, "custom code which must be executed")
    assert not place.exists()

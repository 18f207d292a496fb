"""Classes to ids, image tokens to PNGs: bytes that depend on the tokens alone."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from actors.image_tokenizer import ImageTokenizerActor, png
from models.errors import UnsupportedCheckpoint
from models.training.raster import RasterConfig, RasterModel
from tests.models.tokenizers.tiny_images import VOCABULARY, grid


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raster target of 4 x 4 tokens and 5 classes."""
    folder, tokenizer = tmp_path_factory.mktemp("target"), grid()
    sizes = {"width": 16, "inner_width": 16, "num_layers": 1, "num_heads": 2}
    config = RasterConfig(
        vocab_size=VOCABULARY, code_width=4, num_classes=5, grid_width=4, grid_height=4, **sizes
    )
    RasterModel(config, tokenizer.codebook()).save(folder, torch.float32)
    tokenizer.save(folder / "tokenizer")
    return folder


def test_a_class_is_an_id_behind_the_vocabulary(checkpoint: Path) -> None:
    assert ImageTokenizerActor(str(checkpoint)).encode_batch(["0", "4"]) == [[32], [36]]


def test_a_picture_does_not_depend_on_its_neighbours(checkpoint: Path) -> None:
    tokens = torch.randint(VOCABULARY, (5, 16), generator=torch.Generator().manual_seed(0)).tolist()
    together = ImageTokenizerActor(str(checkpoint)).decode_batch(tokens)
    alone = [ImageTokenizerActor(str(checkpoint)).decode_batch([row])[0] for row in tokens]
    assert together == alone
    assert Image.open(io.BytesIO(together[0])).size == (8, 8)
    assert ImageTokenizerActor(str(checkpoint)).decode_batch([]) == []


def test_colours_are_written_as_such() -> None:
    pixels = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1).expand(3, 2, 4)
    read = Image.open(io.BytesIO(png(pixels)))
    assert (read.mode, read.size, read.getpixel((0, 0))) == ("RGB", (4, 2), (0, 128, 255))
    with pytest.raises(UnsupportedCheckpoint, match="2 channels"):
        png(pixels[:2])


def test_texts_have_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UnsupportedCheckpoint, match="holds no image target"):
        ImageTokenizerActor(str(tmp_path))

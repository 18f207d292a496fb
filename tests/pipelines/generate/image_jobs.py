"""Generate jobs with a tiny image target: random weights, 4 x 4 tokens, 5 classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.engine import build_loop
from models.requests.request import Request, Result
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.tokenizers import TOKENIZER_FOLDER
from models.training.raster import RasterConfig, RasterModel
from pipelines.generate.config import GenerateConfig
from pipelines.modality.choose import modality_of
from pipelines.options import from_mapping
from pipelines.output.manifest import Manifest
from tests.models.tokenizers.tiny_images import SCALES, VOCABULARY, grid, scales
from tests.pipelines.generate.inprocess import run_job

NUM_CLASSES, NUM_TOKENS = 5, 16
RASTER = RasterConfig(
    vocab_size=VOCABULARY,
    code_width=4,
    num_classes=NUM_CLASSES,
    grid_width=4,
    grid_height=4,
    width=32,
    inner_width=48,
    num_layers=2,
    num_heads=2,
)


def save_raster(folder: Path) -> str:
    """An image target with its tokenizer; its logits are far from uniform."""
    tokenizer = grid()
    torch.manual_seed(1)
    model = RasterModel(RASTER, tokenizer.codebook())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 6.0 if parameter.dim() > 1 else 1.0
    model.save(folder, torch.float32)
    tokenizer.save(folder / TOKENIZER_FOLDER)
    return str(folder)


def save_scale(folder: Path) -> str:
    """A next-scale target with its tokenizer: maps of 1, 2, 3 and 4 tokens a side."""
    torch.manual_seed(1)
    config = NextScaleConfig(
        vocab_size=VOCABULARY,
        code_width=4,
        num_classes=NUM_CLASSES,
        scales=SCALES,
        width=32,
        inner_width=48,
        num_layers=2,
        num_heads=2,
    )
    NextScaleModel(config).save(folder, torch.float32)
    scales().save(folder / TOKENIZER_FOLDER)
    return str(folder)


@pytest.fixture(scope="session")
def raster(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The target's folder."""
    return save_raster(tmp_path_factory.mktemp("raster"))


@pytest.fixture
def labels(tmp_path: Path) -> str:
    """A file of 11 labels."""
    rows = [{"id": f"row {i}", "label": i % NUM_CLASSES} for i in range(11)]
    return write_rows(tmp_path / "in" / "labels.jsonl", rows)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def image_config(target: str, source: str, output: Path | str, **values: Any) -> GenerateConfig:
    settings: dict[str, Any] = {
        "target": target,
        "input": source,
        "output": str(output),
        "prompt_field": "label",
        "shard_rows": 4,
        "batch_size": 4,
        "seed": 5,
        "threads": 1,
        "progress": False,
    }
    return from_mapping(GenerateConfig, {**settings, **values})


class LoopPool:
    """A token loop of this process in a pool's place."""

    def __init__(self, config: GenerateConfig) -> None:
        modality = modality_of(config)
        self._loop = build_loop(modality.settled(config).engine())
        self._slots = 2 * config.batch_size

    def free_slots(self) -> int:
        return self._slots - self._loop.num_unfinished

    def submit(self, requests: list[Request]) -> None:
        for request in requests:
            self._loop.submit(request)

    def take(self, timeout_s: float) -> list[Result]:
        with torch.inference_mode():
            return self._loop.step()


def run_images(config: GenerateConfig) -> Manifest:
    """A whole job in this process."""
    return run_job(config, pool=LoopPool(config), codec=modality_of(config).codec())

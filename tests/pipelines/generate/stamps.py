"""Small labelled images with tokens, of a law that is known, in any kind of file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.report import Report
from pipelines.evaluate.run import evaluate
from pipelines.options import from_mapping

CLASSES = 4
Stamps = dict[str, NDArray[Any]]


def stamps(seed: int, count: int, *, noise: float = 0.15, classes: int = CLASSES) -> Stamps:
    """`count` images [N, 8, 8] of bytes, labels in turn, 4 x 4 tokens; always the same patterns."""
    random, patterns = np.random.default_rng(seed), np.random.default_rng(7)
    shapes = patterns.random((CLASSES, 8, 8)) < 0.4
    labels = np.arange(count) % classes
    ink = 0.8 * shapes[labels] + noise * random.standard_normal((count, 8, 8))
    images = (255 * ink.clip(0, 1)).round().astype(np.uint8)
    tokens = images.reshape(count, 4, 2, 4, 2).mean((2, 4)).astype(np.int64) // 32
    return {"images": images, "labels": labels, "tokens": tokens.reshape(count, 16)}


def run(options: dict[str, Any]) -> Report:
    """An evaluation with few resamples."""
    return evaluate(from_mapping(EvaluateConfig, {"progress": False, "bootstrap": 60, **options}))


def png(image: NDArray[np.uint8]) -> bytes:
    """A grey picture."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def write_rows(path: Path, found: Stamps, **columns: Any) -> str:
    """As `paceline generate` writes rows; more or other columns by name, None: without it."""
    table = {
        "label": found["labels"].tolist(),
        "tokens": found["tokens"].tolist(),
        "image": [png(image) for image in found["images"]],
        "seed": list(range(len(found["images"]))),
        "error": pa.nulls(len(found["images"]), pa.string()),
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({k: v for k, v in table.items() if v is not None}), path)
    return str(path)


def write_pictures(folder: Path, found: Stamps) -> str:
    """A folder for each label."""
    for i, (label, image) in enumerate(zip(found["labels"], found["images"], strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{i:05d}.png").write_bytes(png(image))
    return str(folder)

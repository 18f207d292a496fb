"""Images of each way of sampling, as rows that `paceline evaluate` reads."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from actors.image_tokenizer import ImageTokenizerActor
from cluster.storage import storage
from models.sampling.flow import FlowMap
from models.students.checkpoint import load_student
from models.students.sample import first_guesses, image_noise, sample
from models.students.start import Sampled, frozen
from models.training.engines.worker import CPU
from pipelines.generate.rows.writer import parquet_bytes
from pipelines.inputs.seeds import row_seed

BATCH = 64
INDEPENDENT = "independent"
# (classes [B], noise [B, n, C]) -> tokens [B, n]
Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def ways_of(student: Sampled, passes: Sequence[int]) -> dict[str, Way]:
    """Independent sampling of all places, and the student with each number of passes."""
    chart = FlowMap(student.codebook)

    def independent(classes: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return first_guesses(chart, student.prior, classes, noise)

    def passing(count: int) -> Way:
        return lambda classes, noise: sample(student, chart, classes, noise, count)

    return {INDEPENDENT: independent} | {name_of(count): passing(count) for count in passes}


def name_of(passes: int) -> str:
    """What a way of sampling is called."""
    return "1 step" if passes == 1 else f"{passes} steps"


def write_samples(
    folder: Path,
    student_folder: Path,
    passes: Sequence[int],
    *,
    rows: int,
    seed: int,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """`rows` images with classes in turn for each way, the same noise for all; {way: folder}."""
    student = frozen(load_student(student_folder, device))
    codec, config = ImageTokenizerActor(str(student_folder)), student.config
    classes = (torch.arange(rows) % config.num_classes).to(device)
    seeds = np.array([row_seed(seed, str(row), 0) for row in range(rows)])
    noise = image_noise(seeds, config.num_tokens, config.code_width).to(device)
    out = {}
    for name, way in ways_of(student, passes).items():
        parts = [way(*some) for some in zip(classes.split(BATCH), noise.split(BATCH), strict=True)]
        tokens = torch.cat(parts).tolist()
        table = pa.table(
            {
                "id": pa.array([str(row) for row in range(rows)]),
                "label": pa.array(classes.tolist(), pa.int32()),
                "image": pa.array(codec.decode_batch(tokens), pa.binary()),
                "tokens": pa.array(tokens, pa.list_(pa.int32())),
                "seed": pa.array(seeds, pa.int64()),
            }
        )
        place = folder / name.replace(" ", "-")
        storage.publish(str(place / "part-00000.parquet"), parquet_bytes(table))
        out[name] = str(place.relative_to(folder.parent))
    return out

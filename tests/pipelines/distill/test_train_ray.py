"""Training on Ray Train: a second worker and DeepSpeed change no figure; errors end it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actors.trainer import Training
from models.students.config import MadeFor
from models.students.kind import StudentLessons, build_student
from models.students.methods import FLOW_MAP
from models.training.engines.worker import Worker
from models.training.log import read_lines
from models.training.step import TrainingPlan, TrainingStep
from pipelines.distill import train as training_on_ray
from pipelines.distill.train import train
from pipelines.errors import JobFailed
from tests.pipelines.generate.image_jobs import NUM_CLASSES, NUM_TOKENS, raster

__all__ = ["raster"]  # fixture
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("ray_cluster"),
]
STEPS = 20


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    random, count = np.random.default_rng(0), 60
    table = pa.table(
        {
            "label": [row % NUM_CLASSES for row in range(count)],
            "tokens": random.integers(0, 8, (count, NUM_TOKENS)).tolist(),
            "seed": list(range(count)),
        }
    )
    file = tmp_path_factory.mktemp("records") / "part-00000.parquet"
    pq.write_table(table, file)
    return str(file)


def training_in(
    folder: Path, target: str, records: str, deepspeed: dict[str, Any] | None = None
) -> Training:
    lessons = StudentLessons(
        target=target,
        made_for=MadeFor(path=target, digest="e" * 32),
        files=(records,),
        label_field="label",
        guidance=1.0,
        method=FLOW_MAP,
        seed=3,
    )
    return Training(
        folder=str(folder),
        build=partial(build_student, lessons),
        plan=TrainingPlan(steps=STEPS, batch=8, rate=1e-3, seed=3),
        save_every=10,
        exam_every=20,
        threads=1,
        agreed={"records": "e"},
        deepspeed=deepspeed,
    )


@pytest.fixture(scope="module")
def undisturbed(raster: str, records: str, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a training in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    training, worker = training_in(tmp_path_factory.mktemp("plain"), raster, records), Worker()
    made = TrainingStep(training.build(worker), training.plan, worker)
    losses = [made.step()["loss"] for _ in range(STEPS)]
    torch.set_num_threads(threads)
    return losses


def test_two_workers_have_the_losses_of_one(
    raster: str, records: str, tmp_path: Path, undisturbed: list[float]
) -> None:
    spread = {"zero_optimization": {"stage": 2}}
    train(training_in(tmp_path, raster, records, spread), workers=2, progress=False)
    losses = [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl")]
    assert losses == pytest.approx(undisturbed, rel=1e-4)


def test_an_error_of_the_training_ends_it_at_once(
    raster: str, records: str, tmp_path: Path
) -> None:
    training = training_in(tmp_path, raster, str(tmp_path / "none.parquet"))
    with pytest.raises(JobFailed, match=r"the training stopped: .*none\.parquet"):
        train(training, workers=1, progress=False)


def fails_at_first(worker: Worker) -> Any:
    """The first worker has an error; the other one waits for it."""
    if worker.rank == 0:
        raise ValueError("the first worker cannot")
    worker.add(torch.zeros(1))
    raise AssertionError("the other worker's sum came to its end")


def test_workers_that_wait_for_one_with_an_error_end_too(
    raster: str, records: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_on_ray, "MAX_FAILURES", 0)
    training = replace(training_in(tmp_path, raster, records), build=fails_at_first)
    with pytest.raises(JobFailed, match="stopped: ValueError: the first worker cannot"):
        train(training, workers=2, progress=False)

"""A training worker on its device, in this process: from records to an exported student."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors import trainer
from actors.trainer import FAILURE, TRAINED, Training, train_worker
from models.students.checkpoint import load_student
from models.students.kind import build_student
from models.training import determinism
from models.training.log import EXAMS, METRICS, read_lines
from models.training.step import TrainingPlan
from tests.models.accelerator import accelerator
from tests.models.students.test_devices import lessons_of, targets

__all__ = ["targets"]  # fixture


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the only worker, whose settings of torch do not stay."""
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(trainer.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(trainer.ray.train, "report", lambda figures: None)
    monkeypatch.setattr(trainer.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(determinism.torch, "use_deterministic_algorithms", lambda mode: None)


def training_in(folder: Path, target: Path, **values: Any) -> Training:
    return Training(
        folder=str(folder),
        build=partial(build_student, lessons_of(target)),
        plan=TrainingPlan(steps=3, batch=4, rate=1e-3),
        save_every=1,
        exam_every=2,
        threads=1,
        agreed={},
        **values,
    )


@pytest.mark.usefixtures("alone")
def test_a_training_goes_on_on_another_device(
    tmp_path: Path, targets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps on the CPU, and one on a device that refuses to mix the two."""
    train_worker({"training": training_in(tmp_path, targets["raster"], until=2)})
    with accelerator() as device:
        monkeypatch.setattr(trainer, "_device", lambda name: device)
        train_worker({"training": training_in(tmp_path, targets["raster"])})
    assert not list(tmp_path.glob(f"{FAILURE}-*"))
    assert [line["step"] for line in read_lines(tmp_path / METRICS)] == [1, 2, 3]
    assert [line["step"] for line in read_lines(tmp_path / EXAMS)] == [0, 2, 3]
    assert load_student(tmp_path / TRAINED).prior.device == torch.device("cpu")


@pytest.mark.usefixtures("alone")
def test_a_worker_without_its_gpu_says_so(
    tmp_path: Path, targets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train_worker({"training": training_in(tmp_path, targets["raster"], device="cuda")})
    told = (tmp_path / f"{FAILURE}-0.txt").read_text(encoding="utf-8")
    assert "device='cuda' is not accepted: no CUDA device is here" in told

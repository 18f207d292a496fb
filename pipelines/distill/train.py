"""Training on Ray Train: starts the workers and shows how far they are."""

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from tqdm import tqdm

from actors.trainer import FAILURE, Training, train_worker
from cluster.placement.placement import selector
from models.training.log import METRICS, read_lines
from pipelines.distill.places import CPU, CUDA, TRAINER, worker_needs
from pipelines.distill.ray_trainer import Trainer
from pipelines.errors import JobFailed

# How long a worker waits for another one, which may be in an exam or wait for a teacher actor that
# loads the target again: both may take hours with a large target. The limit is not what ends the
# wait for a worker that died: that closes its connections, and Ray stops the others if its node is
# lost.
TIMEOUT_S = 24 * 3600
# On GPUs, gradients are summed by NCCL; figures and the noise of records are in the CPU's memory.
BACKENDS = {CPU: "gloo", CUDA: "cpu:gloo,cuda:nccl"}
MAX_FAILURES = 5  # of worker groups; each one continues from the newest state
LOOK_S = 0.5
CONTROLLER_LOOK = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"  # 2 s by default: ends are seen late


def train(training: Training, *, workers: int, progress: bool) -> Mapping[str, Any]:
    """Train to the end, from the newest state on.

    Raises:
        JobFailed: the workers failed too often.
    """
    folder = Path(training.folder)
    notes = folder / "ray"  # Ray's own, which nothing is continued from
    shutil.rmtree(notes, ignore_errors=True)
    for file in folder.glob(f"{FAILURE}-*"):
        file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    os.environ.setdefault(CONTROLLER_LOOK, str(LOOK_S))
    trainer = Trainer(
        train_worker,
        train_loop_config={"training": training},
        scaling_config=scaling(training.device, workers=workers, labels=selector(TRAINER)),
        torch_config=TorchConfig(backend=BACKENDS[training.device], timeout_s=TIMEOUT_S),
        run_config=RunConfig(
            name="train",
            storage_path=str(notes),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        with _shown(folder / METRICS, training.plan.steps, shown=progress):
            trainer.fit()
    except TrainingFailedError as error:
        _refuse_errors(folder)
        reason = str(error).strip().splitlines()[-1]
        raise JobFailed(f"the training stopped: {reason}. The same command continues") from error
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    _refuse_errors(folder)
    last = read_lines(folder / METRICS)[-1]
    return {"steps": last["step"], "loss": last["loss"], "seconds": time.monotonic() - began}


def scaling(device: str, *, workers: int, labels: Mapping[str, str]) -> ScalingConfig:
    """What Ray Train reserves: on GPUs a whole one for each worker."""
    config: Any = ScalingConfig  # the type stubs are those of Ray Train's first version
    made: ScalingConfig = config(
        num_workers=workers,
        use_gpu=device == CUDA,
        resources_per_worker=worker_needs(device),
        label_selector=dict(labels) or None,
    )
    return made


def _refuse_errors(folder: Path) -> None:
    """Raise JobFailed if a worker has written what went wrong; the first one examines and saves."""
    for file in sorted(folder.glob(f"{FAILURE}-*")):
        reason = file.read_text(encoding="utf-8").strip().splitlines()[-1]
        raise JobFailed(f"the training stopped: {reason}. {file} has the details")


@contextmanager
def _shown(metrics: Path, steps: int, *, shown: bool) -> Iterator[None]:
    """A progress bar that follows the lines of the figures."""
    ended = threading.Event()
    with tqdm(total=steps, desc="train", unit="step", disable=not shown) as bar:
        bar.set_postfix_str("starting workers, drawing noise")

        def follow() -> None:
            while not ended.wait(LOOK_S):
                lines = read_lines(metrics)
                if lines and lines[-1]["step"] != bar.n:
                    bar.set_postfix_str(f"loss {lines[-1]['loss']:.3f}", refresh=False)
                    bar.update(int(lines[-1]["step"]) - bar.n)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

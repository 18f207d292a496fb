"""What a worker of Ray Train runs: its part of every batch, exams and states, for any kind.

All workers have the same weights, or their parts of them. The first one writes. A worker group that
starts again continues from the newest state in the run's folder.
"""

import logging
import shutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import distributed, nn

from cluster import logs
from models.targets.load import pick_device
from models.training.alternating import step_of
from models.training.checkpoint import states
from models.training.determinism import be_deterministic
from models.training.engines.engine import Engine
from models.training.engines.replicas import Replicas
from models.training.engines.worker import Worker
from models.training.kind import LOSS, Kind
from models.training.log import Log
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan, TrainingStep

TRAINED = "trained"  # folder of the trained model
FAILURE = "failure"  # files of workers that ended with an error

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training: from records to a model.

    `folder`: for states, figures and the model. `build`: makes what is trained on a worker; Ray
    sends it there. `agreed`: what a state must agree on to be continued. `device`: "cpu", or
    "cuda", the GPU of each worker. `deepspeed`: its configuration, checked. `until`: steps after
    which to stop with a state; None: all.
    """

    folder: str
    build: Callable[[Worker], Kind]
    plan: TrainingPlan
    save_every: int
    exam_every: int
    threads: int
    agreed: Mapping[str, Any]
    device: str = "cpu"
    deepspeed: Mapping[str, Any] | None = None
    until: int | None = None

    @property
    def end(self) -> int:
        """The number of steps after which the workers end."""
        return self.plan.steps if self.until is None else self.until


def train_worker(settings: dict[str, Training]) -> None:
    """The function of each worker; `settings` holds the training by this name.

    Ray starts all workers again if one raises an error, as if its process had died. An error of our
    code would only come again, so it is written to a file and the worker ends. Several workers
    would wait for it, so there it is raised, too.
    """
    training, context = settings["training"], ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    logs.set_up(f"trainer-{rank}")
    failure = Path(training.folder) / f"{FAILURE}-{rank}.txt"
    failure.unlink(missing_ok=True)
    try:
        device = _device(training.device)
        _train(training, Worker(rank=rank, world=world, device=device, add=_add_over_workers))
    except Exception:
        logger.exception("the training stops")
        failure.write_text(traceback.format_exc(), encoding="utf-8")
        if world > 1:
            raise


def _device(name: str) -> torch.device:
    """The CPU, or the GPU that Ray gave to this worker.

    Raises:
        InvalidOption: torch sees no GPU here.
    """
    found = pick_device(name)
    return ray.train.torch.get_device() if found.type == "cuda" else found


def _train(training: Training, worker: Worker) -> None:
    torch.set_num_threads(training.threads)
    be_deterministic(worker.device)
    kind, spread = training.build(worker), partial(_spread, training, worker)
    made = step_of(kind, training.plan, worker, spread)
    folder = Path(training.folder)
    found = states(folder)
    if found:
        load_state(found[-1], made, training.agreed)
    told = "the training begins after step %d of %d"
    logger.info(told, made.done, training.plan.steps, extra={"step": made.done})
    if worker.rank == 0:
        with Log(folder, done=made.done) as log:
            _run(made, training, log)
        if made.done == training.plan.steps:
            _write(made, training)
    else:
        _run(made, training, None)


def _spread(training: Training, worker: Worker, model: nn.Module) -> Engine:
    """Hold the model as DeepSpeed's configuration says; stage 0 is what is done without it."""
    told = training.deepspeed or {}
    if told.get("zero_optimization", {}).get("stage", 0) == 0:
        return Replicas(model, worker, accumulate=told.get("gradient_accumulation_steps", 1))
    from models.training.engines.zero import Zero

    return Zero(model, told, batch=training.plan.batch, world=worker.world)


def _run(made: TrainingStep, training: Training, log: Log | None) -> None:
    """Take the steps that are left; the first worker, which has the log, examines and saves."""
    if log is not None and made.done == 0:
        log.add_exam(0, made.examine())
    while made.done < training.end:
        figures = made.step()
        last = made.done == training.plan.steps
        if log is not None:
            log.add(figures)
            if last or made.done % training.exam_every == 0:
                log.add_exam(made.done, made.examine())
        if made.done == training.end or made.done % training.save_every == 0:
            save_state(Path(training.folder), made, training.agreed, write=log is not None)
            if log is not None:
                told = {"step": made.done, "loss": figures[LOSS]}
                logger.info("step %d is saved", made.done, extra=told)
            ray.train.report(figures)  # all workers wait here for each other


def _write(made: TrainingStep, training: Training) -> None:
    """The best average of the weights, as a checkpoint that says its target."""
    place = Path(training.folder) / TRAINED
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    made.kind.export(made.chosen(), new)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)


def _add_over_workers(tensor: torch.Tensor) -> None:
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(tensor)

"""What a worker of Ray Train runs to train a student: its part of every batch, and the states.

All workers have the same weights. They exchange gradients, and the first one writes. A worker group
that starts again continues from the newest state in the run's folder.
"""

import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from torch import distributed

from models.sampling.flow import FlowMap
from models.students.checkpoint import save_student
from models.students.config import MadeFor, StudentConfig
from models.students.network import student_of
from models.students.pairs import Pairs, make_pairs
from models.students.prior import token_shares
from models.students.records import read_records
from models.students.teacher import laws, load_teacher
from models.tokenizers import TOKENIZER_FOLDER
from models.training.log import Log
from models.training.state import load_state, save_state, states
from models.training.student_step import StudentStep, TrainingPlan, Worker

STUDENT = "student"  # folder of the trained student
FAILURE = "failure"  # files of workers that ended with an error


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentTraining:
    """A training: from records to a student.

    `folder`: for states, figures and the student. `files`: of the records, in order. `agreed`: what
    a state must agree on to be continued.
    """

    folder: str
    target: str
    made_for: MadeFor
    files: tuple[str, ...]
    label_field: str
    guidance: float
    plan: TrainingPlan
    save_every: int
    threads: int
    agreed: Mapping[str, Any]


def train_student(settings: dict[str, StudentTraining]) -> None:
    """The function of each worker; `settings` holds the training by this name.

    Ray starts all workers again if one raises an error, as if its process had died. An error of our
    code would only come again, so it is written to a file and the worker ends.
    """
    training, context = settings["training"], ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(), world=context.get_world_size(), add=_add_over_workers
    )
    failure = Path(training.folder) / f"{FAILURE}-{worker.rank}.txt"
    failure.unlink(missing_ok=True)
    try:
        _train(training, worker)
    except Exception:
        failure.write_text(traceback.format_exc(), encoding="utf-8")


def _train(training: StudentTraining, worker: Worker) -> None:
    torch.set_num_threads(training.threads)
    torch.use_deterministic_algorithms(True)
    made = prepare(training, worker)
    folder = Path(training.folder)
    found = states(folder)
    if found:
        load_state(found[-1], made, training.agreed)
    if worker.rank == 0:
        with Log(folder / "metrics.jsonl", folder / "events", done=made.done) as log:
            _run(made, training, log)
        _write_student(made, training)
    else:
        _run(made, training, None)


def prepare(training: StudentTraining, worker: Worker) -> StudentStep:
    """Everything before the first step: teacher, records, pairs, student."""
    teacher = load_teacher(training.target)
    config = teacher.config
    records = read_records(training.files, config, label_field=training.label_field)
    sizes = {"num_classes": config.num_classes, "vocab_size": config.vocab_size}
    prior = token_shares(records.classes, records.tokens, **sizes)
    chart = FlowMap(teacher.model.codebook, dtype=torch.float32)
    teach = partial(laws, teacher, guidance=training.guidance)
    pairs = _shared(
        make_pairs(records, teach, chart, prior, rank=worker.rank, world=worker.world), worker
    )
    torch.manual_seed(training.plan.seed)
    said = StudentConfig.of(config, training.made_for, training.guidance)
    return StudentStep(student_of(teacher, said, prior), teach, pairs, training.plan, worker)


def _run(made: StudentStep, training: StudentTraining, log: Log | None) -> None:
    """Take the steps that are left; the first worker, which has the log, saves states."""
    while made.done < training.plan.steps:
        figures = made.step()
        if log is not None:
            log.add(figures)
        if made.done % training.save_every == 0 or made.done == training.plan.steps:
            if log is not None:
                save_state(Path(training.folder), made, training.agreed)
            ray.train.report(figures)  # all workers wait here for each other


def _write_student(made: StudentStep, training: StudentTraining) -> None:
    """The average of the weights, as a checkpoint that says its target."""
    place = Path(training.folder) / STUDENT
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    save_student(made.average, new, tokenizer=Path(training.target) / TOKENIZER_FOLDER)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)


def _shared(pairs: Pairs, worker: Worker) -> Pairs:
    """The pairs that all workers made; zeros where another worker made them."""
    worker.add(pairs.noise)
    worker.add(pairs.guesses)
    return pairs


def _add_over_workers(tensor: torch.Tensor) -> None:
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(tensor)

"""A process that trains drafters of several kinds in turn, from their newest states on."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.kind import Course
from models.training.checkpoint import states
from models.training.engines.worker import Worker
from models.training.log import Log
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan, TrainingStep

KINDS, STEPS, SAVE_EVERY, EXAM_EVERY = ("model", "medusa", "hydra", "eagle"), 40, 7, 10


def training(kind: str, target: str, file: str) -> TrainingStep:
    """A short training of a drafter."""
    course = Course(depth=3, kept=2, exam_tokens=8, match_from=60)
    lessons = DraftLessons(
        kind=kind, target=target, files=(file,), course=course, length=24, seed=1
    )
    plan = TrainingPlan(steps=STEPS, batch=4, rate=1e-2, seed=1)
    return TrainingStep(build_drafter(lessons, Worker()), plan)


def run(folder: Path, target: str, file: str, kinds: Sequence[str]) -> None:
    """Train each of these kinds in a folder of its own."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for kind in kinds:
        made = training(kind, target, file)
        if found := states(folder / kind):
            load_state(found[-1], made, {})
        with Log(folder / kind, done=made.done) as log:
            if made.done == 0:
                log.add_exam(0, made.examine())
            while made.done < STEPS:
                log.add(made.step())
                if made.done % EXAM_EVERY == 0:
                    log.add_exam(made.done, made.examine())
                if made.done % SAVE_EVERY == 0 or made.done == STEPS:
                    save_state(folder / kind, made, {})


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])

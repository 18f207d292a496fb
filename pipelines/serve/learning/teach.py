"""A round of training, as a process of low priority: python -m ... FOLDER PARENT

FOLDER/lesson.json      what is asked
FOLDER/texts.parquet    the texts, held-out ones last; chosen once
FOLDER/chosen.json      commits them, with the temperatures of the held-out ones
FOLDER/train/           states; a process that is started again goes on from the newest
FOLDER/drafter/         the trained drafter
FOLDER/verdict.json     how it and the present one do on the held-out texts

The process ends if PARENT does, the one that started it.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.storage import storage
from models.drafting.distil.build import (
    TRAINABLE,
    DraftLessons,
    build_drafter,
    network_of,
    target_config,
)
from models.drafting.distil.kind import Course as DraftCourse
from models.drafting.distil.kind import DrafterKind
from models.drafting.distil.texts import write_texts
from models.drafting.folder_kind import folder_kind
from models.errors import PacelineError, UnsupportedCheckpoint
from models.training.checkpoint import states
from models.training.engines.worker import Worker
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan, TrainingStep
from pipelines.serve.learning.choice import choose
from pipelines.serve.learning.decision import decide
from pipelines.serve.learning.lesson import IDLE, ROWS, Lesson, read_lesson
from pipelines.serve.learning.rows import newest_rows
from pipelines.serve.learning.verdict import DRAFTER, REFUSED, read_verdict, write_verdict

TEXTS, CHOSEN, TRAIN = "texts.parquet", "chosen.json", "train"
JUDGED = 8  # texts at once
LATE = 2 / 3  # of the samples, after which the match loss is lowered


def teach(folder: Path, *, go_on: Callable[[], bool] = lambda: True) -> None:
    """Train, judge and write the verdict; what was done before is not done again.

    It stops early, between two steps, as soon as `go_on` says so.

    Raises:
        UnsupportedCheckpoint: the rows or the drafter cannot be used.
    """
    if read_verdict(folder) is not None:
        return
    lesson = read_lesson(folder)
    temperatures = _choose(folder, lesson)
    lessons = _lessons(folder, lesson, held_out=len(temperatures))
    kind = build_drafter(lessons, Worker())
    if _train(folder, lesson, kind, go_on):
        present, new = (
            _lengths(kind, replace(lessons, start=start), temperatures)
            for start in (lesson.present, str(folder / DRAFTER))
        )
        write_verdict(folder, decide(present, new))


def _choose(folder: Path, lesson: Lesson) -> list[float]:
    """The held-out texts' temperatures, once the texts are written."""
    file, course = folder / CHOSEN, lesson.course
    if not file.exists():
        chosen = choose(
            newest_rows(Path(lesson.rows), ROWS),
            length=course.length,
            depth=lesson.depth,
            most_learned=course.learned,
            most_held_out=course.held_out,
        )
        if len(chosen.held_out) < course.least_held_out or not chosen.learned:
            told = f"{course.least_held_out} held-out prompts and one to learn from are needed"
            found = f"{len(chosen.held_out)} and {len(chosen.learned)} were recorded"
            raise UnsupportedCheckpoint(f"{lesson.rows}: {told}; {found}")
        write_texts(folder / TEXTS, [*chosen.learned, *chosen.held_out])
        storage.publish(str(file), json.dumps(chosen.temperatures).encode())
    found_temperatures: list[float] = json.loads(file.read_text(encoding="utf-8"))
    return found_temperatures


def _lessons(folder: Path, lesson: Lesson, *, held_out: int) -> DraftLessons:
    course = lesson.course
    kinds = {found: name for name, found in TRAINABLE.items()}
    late = int(LATE * course.steps) * course.batch
    return DraftLessons(
        kind=kinds[folder_kind(lesson.start)],
        target=lesson.target,
        files=(str(folder / TEXTS),),
        course=DraftCourse(depth=lesson.depth, match_from=late, kept=held_out),
        length=course.length,
        seed=lesson.number,
        start=lesson.start,
        about={"target": {"path": lesson.target, "digest": lesson.digest}},
    )


def _train(folder: Path, lesson: Lesson, kind: DrafterKind, go_on: Callable[[], bool]) -> bool:
    """To the end, from the newest state on; False if it stopped early."""
    course, place = lesson.course, folder / TRAIN
    plan = TrainingPlan(
        steps=course.steps, batch=course.batch, rate=course.rate, seed=lesson.number
    )
    made = TrainingStep(kind, plan)
    agreed: dict[str, Any] = json.loads(json.dumps(asdict(lesson)))
    found = states(place)
    if found:
        load_state(found[-1], made, agreed)
    while made.done < course.steps:
        if not go_on():
            return False
        made.step()
        if made.done % course.save_every == 0:
            save_state(place, made, agreed)
    drafter, new = folder / DRAFTER, folder / f"{DRAFTER}.new"
    kind.export(made.chosen(), new)
    shutil.rmtree(drafter, ignore_errors=True)
    new.rename(drafter)
    return True


@torch.no_grad()
def _lengths(kind: DrafterKind, lessons: DraftLessons, temperatures: list[float]) -> list[float]:
    """The mean tokens per round of each held-out text, with the drafter that is `start`."""
    target = Path(lessons.target)
    network, _ = network_of(lessons, target, target_config(target))
    numbers = kind.num_records + np.arange(len(temperatures))
    told = torch.tensor(temperatures, dtype=torch.float32)
    found: list[float] = []
    for begin in range(0, len(numbers), JUDGED):
        some = slice(begin, begin + JUDGED)
        lengths = kind.lengths_at(network.eval(), numbers[some], told[some])  # [B, N]
        found += lengths.nanmean(-1).tolist()
    return found


def _step_back(nice: int) -> None:
    """Give way to other processes, and use one thread."""
    os.nice(nice)
    if nice == IDLE:
        with suppress(AttributeError, OSError):  # only Linux has it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    torch.set_num_threads(1)


def main(folder: str, parent: str) -> int:
    """Teach, as long as the process `parent` lives, which has started this one."""
    _step_back(read_lesson(Path(folder)).course.nice)
    try:
        teach(Path(folder), go_on=lambda: os.getppid() == int(parent))
    except PacelineError as error:
        print(error)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

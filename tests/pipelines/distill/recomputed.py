"""A training of a drafter in the tests' own process, for comparison with that of a command."""

import json
from pathlib import Path

import torch

from models.training.engines.worker import Worker
from models.training.log import EXAMS, METRICS, read_lines
from models.training.step import TrainingStep
from pipelines.cli import parse
from pipelines.distill.command import drafter_config
from pipelines.distill.drafters.drafter import check
from pipelines.distill.stages import plan_of


def assert_recomputed(out: Path, command: list[str]) -> None:
    """Losses and exams of the run are those of a training here that holds the target."""
    run = check(drafter_config(parse(command)))
    data = json.loads((out / "_stages" / "records.json").read_text())["told"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = TrainingStep(run.build(data)(Worker()), plan_of(run.config))
    exams = [{"step": 0, **plain.examine()}]
    losses = []
    while plain.done < plain.plan.steps:
        losses.append(plain.step()["loss"])
        if plain.done % run.config.exam_every == 0:
            exams.append({"step": plain.done, **plain.examine()})
    torch.set_num_threads(threads)
    assert [line["loss"] for line in read_lines(out / "train" / METRICS)] == losses
    assert read_lines(out / "train" / EXAMS) == exams

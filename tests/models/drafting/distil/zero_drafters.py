"""Two processes that train drafters under ZeRO stage 3, which spreads their weights."""

from pathlib import Path

import torch
from torch import distributed, multiprocessing

from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.kind import Course
from models.training.engines.worker import Worker
from models.training.engines.zero import Zero
from models.training.step import TrainingPlan, TrainingStep

KINDS, STEPS, WORLD, BATCH = ("medusa", "eagle"), 3, 2, 4


def training(kind: str, target: str, file: str, worker: Worker, engine=None) -> TrainingStep:
    """A short training of a drafter."""
    lessons = DraftLessons(
        kind=kind,
        target=target,
        files=(file,),
        course=Course(depth=3, kept=2, match_from=BATCH),
        length=24,
        seed=1,
    )
    plan = TrainingPlan(steps=STEPS, batch=BATCH, rate=1e-2, seed=1)
    return TrainingStep(build_drafter(lessons, worker), plan, worker, engine)


def run(folder: Path, target: str, file: str) -> None:
    """Train in two new processes; rank 0 writes the losses to `folder`/KIND.txt."""
    multiprocessing.spawn(_process, args=(str(folder), target, file), nprocs=WORLD)


def _process(rank: int, place: str, target: str, file: str) -> None:
    torch.set_num_threads(1)
    folder = Path(place)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD
    )
    worker = Worker(rank=rank, world=WORLD, add=distributed.all_reduce)
    told = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
    for kind in KINDS:
        made = training(
            kind, target, file, worker, lambda m: Zero(m, told, batch=BATCH, world=WORLD)
        )
        losses = [made.step()["loss"] for _ in range(STEPS)]
        if rank == 0:
            (folder / f"{kind}.txt").write_text("\n".join(map(str, losses)), encoding="utf-8")
        distributed.barrier()

"""Two processes that train a small student in legs: each leg continues the last one's state."""

from pathlib import Path

import torch
from torch import distributed, multiprocessing

from models.training.checkpoint import states
from models.training.engines.replicas import Replicas
from models.training.engines.worker import Worker
from models.training.engines.zero import Zero
from models.training.state import load_state, save_state
from models.training.step import TrainingStep
from tests.models.students.tables import EQUAL, training_of

STEPS, BATCH, WORLD = 50, 16, 2
# (ends after this step, ZeRO stage or None for plain workers, workers, parts of a batch)
LEGS = ((15, 3, 2, 1), (25, None, 1, 1), (35, 2, 2, 2), (43, 1, 2, 1), (STEPS, None, 2, 1))


def training(worker=None, engine=None):
    """The training whose curve all legs together must have."""
    return training_of(EQUAL, steps=STEPS, batch=BATCH, count=200, worker=worker, engine=engine)


def run_legs(folder: Path) -> None:
    """Train in two new processes; rank 0 writes losses and norms to `folder`/figures-LEG.txt."""
    multiprocessing.spawn(_process, args=(str(folder),), nprocs=WORLD)


def _process(rank: int, place: str) -> None:
    torch.set_num_threads(1)
    folder = Path(place)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD
    )
    for index, (end, stage, world, parts) in enumerate(LEGS):
        if rank < world:
            made = _made(rank, stage, world, parts)
            if index:
                load_state(states(folder)[-1], made, {})
            lines = []
            while made.done < end:
                figures = made.step()
                lines.append(f"{figures['loss']} {figures['gradient_norm']}\n")
            save_state(folder, made, {}, write=rank == 0)
            if rank == 0:
                (folder / f"figures-{index}.txt").write_text("".join(lines), encoding="utf-8")
        distributed.barrier()


def _made(rank: int, stage: int | None, world: int, parts: int) -> TrainingStep:
    add = distributed.all_reduce if world > 1 else lambda tensor: None
    worker = Worker(rank=rank, world=world, add=add)
    if stage is None:
        return training(worker, lambda model: Replicas(model, worker, accumulate=parts))
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
    told = {"zero_optimization": zero, "gradient_accumulation_steps": parts}
    return training(worker, lambda model: Zero(model, told, batch=BATCH, world=world))

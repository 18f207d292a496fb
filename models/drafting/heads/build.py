"""Loads drafters that read the target's states; see `Build` in models/engine.py."""

from pathlib import Path

from models.drafting.heads.eagle_drafter import EagleDrafter
from models.drafting.heads.eagle_layouts import read_eagle
from models.drafting.heads.eagle_model import EagleModel
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.heads.hydra_head import read_hydra
from models.drafting.heads.hydra_model import HydraModel
from models.drafting.heads.medusa_head import read_medusa
from models.drafting.heads.medusa_model import MedusaModel
from models.drafting.sharpness import read_sharpness
from models.engine_config import EngineConfig
from models.memory.budget import budget_bytes, pool_entries
from models.targets.load import DTYPES, device_beside
from models.targets.target import Target
from models.targets.vocabulary import same_size


def build_eagle(
    config: EngineConfig,
    target: Target | None,
    *,
    rows: int,
    max_length: int | None,
    scratch: int,
    budget: int | None,
) -> EagleDrafter:
    """An EAGLE-3 drafter.

    Raises:
        UnsupportedCheckpoint: it cannot be loaded, or does not fit the target.
    """
    head = read_eagle(Path(config.drafter), Path(config.target))
    if target is not None:
        same_size(config.target, target.vocab_size, config.drafter, head.config.layer.vocab_size)
    where = device_beside(target, config.device)
    model = EagleModel(head, dtype=DTYPES[config.dtype], device=where)
    capacity = (max_length or head.config.layer.context_length) + scratch
    if budget is None:
        budget = budget_bytes(config.memory, model.device.type)
    shared = model.bytes_per_entry + (0 if target is None else target.bytes_per_entry)
    return EagleDrafter(
        model,
        rows=rows,
        capacity=capacity,
        name=config.drafter,
        entries=pool_entries(budget, shared, rows=rows, longest=capacity),
        sharpness=read_sharpness(Path(config.drafter)),
    )


def build_medusa(config: EngineConfig, target: Target | None, **options: object) -> HeadsDrafter:
    """Medusa heads.

    Raises:
        UnsupportedCheckpoint: they cannot be loaded, or do not fit the target.
    """
    head = read_medusa(Path(config.drafter), Path(config.target))
    if target is not None:
        same_size(config.target, target.vocab_size, config.drafter, head.config.vocab_size)
    where = device_beside(target, config.device)
    model = MedusaModel(head, dtype=DTYPES[config.dtype], device=where)
    return HeadsDrafter(model, name=config.drafter, sharpness=read_sharpness(Path(config.drafter)))


def build_hydra(config: EngineConfig, target: Target | None, **options: object) -> HeadsDrafter:
    """Hydra heads.

    Raises:
        UnsupportedCheckpoint: they cannot be loaded, or do not fit the target.
    """
    head = read_hydra(Path(config.drafter), Path(config.target))
    where = device_beside(target, config.device)
    model = HydraModel(head, dtype=DTYPES[config.dtype], device=where)
    return HeadsDrafter(model, name=config.drafter, sharpness=read_sharpness(Path(config.drafter)))

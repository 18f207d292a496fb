"""Loads the draft model of a configuration, and checks that it fits the target.

Under classifier-free guidance, the target's tokens come from guided laws. A draft model that has
learned these laws guesses by its own. Another one is guided as the target is: it reads each token
twice, and its laws are close to the target's.
"""

from pathlib import Path

from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.folder_kind import ABOUT
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.memory.budget import budget_bytes, pool_entries
from models.targets.decoder.config import read_json
from models.targets.guided import guide
from models.targets.image_tokens import same_images
from models.targets.load import DTYPES, device_beside, load_target
from models.targets.target import Target
from models.targets.vocabulary import same_size, same_vocabulary

LEARNED = "guidance"  # in ABOUT: the scale of the laws that a draft model has learned


def build(
    config: EngineConfig,
    target: Target | None,
    *,
    rows: int,
    max_length: int | None,
    scratch: int,
    budget: int | None,
) -> ModelDrafter:
    """See `Build` in models/engine.py.

    Raises:
        UnsupportedCheckpoint: the draft model cannot be loaded, or does not fit the target.
        InvalidOption: it has no null class, which the guidance needs.
    """
    where = device_beside(target, config.device)
    model = load_target(config.drafter, dtype=DTYPES[config.dtype], device=where)
    if not model.schedule.in_order:
        raise UnsupportedCheckpoint(
            f"draft {config.drafter!r} decides its tokens in groups; it cannot guess the next one"
        )
    same_vocabulary(config.target, config.drafter)
    same_images(config.target, config.drafter)
    model = guide(model, own_guidance(config.drafter, config.guidance))
    if target is not None:
        same_size(config.target, target.vocab_size, config.drafter, model.vocab_size)
    max_length = max_length or model.context_length
    if model.context_length < max_length:
        raise UnsupportedCheckpoint(
            f"draft {config.drafter!r} has a context of {model.context_length} tokens; "
            f"{max_length} are needed: set max_length to at most that, or use a longer draft"
        )
    if budget is None:
        budget = budget_bytes(config.memory, model.device.type)
    shared = model.bytes_per_entry + (0 if target is None else target.bytes_per_entry)
    capacity = max_length + scratch
    return ModelDrafter(
        model,
        rows=rows,
        capacity=capacity,
        name=config.drafter,
        entries=pool_entries(budget, shared, rows=rows, longest=capacity),
    )


def own_guidance(folder: str, scale: float) -> float:
    """The scale at which a draft model is guided for a target with this one; 1: not at all."""
    file = Path(folder) / ABOUT
    learned = read_json(file).get(LEARNED) if file.exists() else None
    return scale if learned in (None, 1) else 1.0

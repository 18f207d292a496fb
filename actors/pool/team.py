"""The draft actors that a pool's targets share: hired together, checked against the target."""

from collections.abc import Mapping
from typing import Any

from actors.messages import DraftTeam
from actors.pool.members import Pool
from actors.pool.places.role import Role
from cluster.placement.placement import selector
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.registry import drafter_entry
from models.requests.request import require

Description = Mapping[str, Any]


def draft_pool(
    config: EngineConfig, *, actors: int, rows: int, num_cpus: float, num_gpus: float
) -> Pool:
    """A pool of draft actors, not started. `rows`: requests that each of them remembers.

    Raises InvalidOption: the drafter cannot work elsewhere.
    """
    told = f"0 with {config.drafter}: it reads the target's last pass"
    require(drafter_entry(config.drafter).remote, "draft_actors", actors, told)
    role = Role(
        name="draft",
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        labels=selector("draft"),
        min_size=actors,
        max_size=actors,
        required=False,
    )
    from actors.drafts.draft import DraftActor  # loads torch

    return Pool(role, DraftActor, lambda: (config, rows))


def team_of(drafts: Pool, *, patience: float) -> DraftTeam:
    """What targets are told of the draft actors, which are ready."""
    told = describe(drafts)
    return DraftTeam(
        name=told["name"],
        max_width=told["max_width"],
        deterministic=told["parameters"] is None,
        by_choices=told["by_choices"],
        layers=tuple(told["layers"]),
        patience=patience,
    )


def describe(pool: Pool) -> Description:
    """What the first of a pool's ready actors says of itself; empty if none is ready."""
    return next((m.description for m in pool.ready if m.description is not None), {})


def check_fit(target: Description, draft: Description) -> None:
    """Raise UnsupportedCheckpoint unless the draft can draft for every request of the target."""
    name, vocabulary = draft["name"], draft["vocabulary"]
    if vocabulary not in (None, target["vocabulary"]):
        raise UnsupportedCheckpoint(
            f"draft {name!r} has a vocabulary of {vocabulary} tokens, "
            f"the target of {target['vocabulary']}: they must be the same"
        )
    if draft["max_length"] < target["max_length"]:
        raise UnsupportedCheckpoint(
            f"draft {name!r} has a context of {draft['max_length']} tokens; "
            f"{target['max_length']} are needed: set max_length to at most that, "
            "or use a longer draft"
        )

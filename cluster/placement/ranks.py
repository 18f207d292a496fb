"""Room for the processes that hold one model together: all on one node, or nowhere."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


def reserve(each: Mapping[str, float], ranks: int, labels: Mapping[str, str]) -> PlacementGroup:
    """Ask for a node with these `labels` that has the resources `each` for each of the ranks.

    Returns at once; processes that are placed in the group wait until it has its node.
    """
    selectors = [dict(labels)] * ranks if labels else None
    bundles = [dict(each)] * ranks
    made: PlacementGroup = placement_group(bundles, "STRICT_PACK", bundle_label_selector=selectors)
    return made


def placed_in(group: PlacementGroup, rank: int) -> dict[str, Any]:
    """The options of the actor that is this rank; what it starts finds the group, too."""
    strategy = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=rank, placement_group_capture_child_tasks=True
    )
    return {"scheduling_strategy": strategy}


def release(group: PlacementGroup) -> None:
    """Give the room back, and end what still runs in it."""
    with suppress(RuntimeError, ValueError):  # the cluster is gone
        remove_placement_group(group)

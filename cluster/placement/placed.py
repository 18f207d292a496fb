"""Whether Ray has found a process for an actor, as the cluster's own server (GCS) says.

Ray's state API asks the dashboard, which private clusters have none of. This asks the server itself
by the connection that every driver has, with the cluster's token.
"""

from typing import Any

from ray import WorkerID
from ray._private.state import state
from ray.util.placement_group import PlacementGroup, placement_group_table


def has_process(actor: Any) -> bool:
    """Whether a process was given to the actor, which may still be starting, or has ended.

    Waits while the server does not answer.
    """
    from ray.core.generated import gcs_pb2

    table: Any = gcs_pb2.ActorTableData  # type: ignore[attr-defined]  # made at run time
    told = state.get_actor_info(actor._actor_id)
    if told is None:
        return False  # the server has not even been asked for it
    known = table.FromString(told)
    unplaced = (table.DEPENDENCIES_UNREADY, table.PENDING_CREATION)
    worker = known.address.worker_id
    return known.state not in unplaced or (bool(worker) and not WorkerID(worker).is_nil())


def has_room(group: PlacementGroup) -> bool:
    """Whether a placement group has its node. Waits while the server does not answer."""
    return bool(placement_group_table(group).get("state") == "CREATED")

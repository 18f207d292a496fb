"""Waiting until the cluster has room for a pool's actors: what is waited for is logged, and a
placement that cannot be had is refused."""

import logging
import time
from collections.abc import Iterable

import ray

from actors.errors import PoolFailed
from actors.pool.places.role import Role
from cluster.placement.placement import Demand, alive_nodes, amounts, is_autoscaling, shortage

LOOK_EVERY_S = 1.0
TELL_EVERY_S = 30.0
log = logging.getLogger(__name__)


def require_room(demands: Iterable[Demand], *, patience_s: float) -> None:
    """Raise PoolFailed if the nodes cannot hold the actors, even with nothing else on them.

    Nodes that join within `patience_s` count; an autoscaler is left to add some.
    """
    demands = list(demands)
    deadline = time.monotonic() + patience_s
    while (told := shortage(demands, alive_nodes())) is not None:
        if is_autoscaling():
            log.warning("%s; waiting for the autoscaler to add nodes", told)
            return
        if time.monotonic() >= deadline:
            raise PoolFailed(told)
        time.sleep(0.2)


class Placing:
    """Actors of one role that Ray has not placed on a node yet.

    `lack`: why none of them will start soon, once that is known.
    """

    def __init__(self, role: Role, *, started: bool) -> None:
        """`started`: all had places before, so a node was lost that somebody may replace."""
        self._role, self._started = role, started
        self.lack: str | None = None
        self._began = self._looked = self._told = time.monotonic()

    def check(self, waiting: int, wanted: int) -> None:
        """Log what is waited for, from time to time.

        Raises PoolFailed if the nodes do not hold `wanted` actors within the role's `busy_s`
        seconds, or soon if they cannot and never could.
        """
        now, role = time.monotonic(), self._role
        waited = now - self._began
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        short = shortage([role.demand(wanted)], alive_nodes())
        hopeless = short is not None and not self._started and waited > role.place_s
        if hopeless and not is_autoscaling():
            raise PoolFailed(short)
        self.lack = short
        if short is None and waited >= TELL_EVERY_S:
            self.lack = f"{role.demand(waiting)} found no place for {waited:.0f} s"
        if now - self._told < TELL_EVERY_S and waited < role.busy_s:
            return
        demand, free = role.demand(waiting), ray.available_resources()
        told = amounts({name: free.get(name, 0.0) for name in demand.each})
        told = f"free now: {told}" if short is None else short
        if waited >= role.busy_s:
            raise PoolFailed(f"no place for {demand} within {waited:.0f} s; {told}")
        self._told = now
        log.warning("waiting for %s to start since %.0f s; %s", demand, waited, told)

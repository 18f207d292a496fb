"""A pool that gets back the CPU of a node that a dead server (GCS) gave away; run as a program."""

import logging
import sys
import time
from pathlib import Path

from actors.pool.members import Pool
from actors.pool.places import unplaced
from actors.pool.places.role import Role
from cluster.connect import connected
from tests.actors.test_placing import Idle
from tests.nodes import cluster_of

ROLE = Role(name="target", labels={"paceline.io/role": "target"})
WITHIN_S = 90.0


def main(state: Path) -> None:
    logging.basicConfig(level=logging.INFO)
    unplaced.PATIENCE_S = unplaced.LOOK_EVERY_S = 1.0
    with cluster_of(state, "head", {"target": (1,)}) as nodes, connected(nodes.address):
        holder, pool = Pool(ROLE, Idle, tuple), Pool(ROLE, Idle, tuple)
        holder.start()
        pool.poll()
        time.sleep(1.0)  # the node knows what the server wants, and has no room
        nodes.restart_server()
        time.sleep(3.0)  # the server has asked again
        holder.stop()
        deadline = time.monotonic() + WITHIN_S
        while not pool.ready and time.monotonic() < deadline:
            pool.poll()
            time.sleep(0.05)
        print(*pool.members, "is ready" if pool.ready else "waits")
        pool.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

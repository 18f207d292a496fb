"""How many requests a pool asks for decides whether it grows. Without Ray: no actor is started."""

import pytest

from actors.pool.members import Member, Pool
from actors.pool.places.role import Role
from actors.pool.pool import QUEUE_FACTOR, TargetPool
from actors.target import TargetActor
from models.engine_config import EngineConfig

BATCH = 4


def pool(*, least: int, most: int, ready: int) -> TargetPool:
    role = Role(name="target", min_size=least, max_size=most)
    targets = Pool(role, TargetActor, tuple)
    for i in range(ready):
        targets.members[f"target-{i}"] = Member(f"target-{i}", None, None, None, 0.0, (), {})
    return TargetPool(EngineConfig(target="none", batch_size=BATCH), targets)


@pytest.mark.parametrize(
    ("least", "most", "ready", "actors"),
    [(1, 1, 1, 1), (2, 2, 1, 1), (1, 3, 1, 2), (1, 3, 2, 3), (1, 3, 3, 3), (1, 3, 0, 1)],
)
def test_a_pool_that_may_grow_asks_for_one_actor_more(least, most, ready, actors):
    slots = pool(least=least, most=most, ready=ready).free_slots()
    assert slots == QUEUE_FACTOR * BATCH * actors

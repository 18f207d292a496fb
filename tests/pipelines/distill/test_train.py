"""How long workers of a training wait for each other: without Ray."""

from actors.pool.places.role import Role
from pipelines.distill.train import TIMEOUT_S


def test_a_teacher_may_take_long_to_come_again() -> None:
    assert 2 * Role(name="teacher").busy_s < TIMEOUT_S

"""What a pool says of its answers holds on all of its target actors; without processes."""

from types import SimpleNamespace
from typing import Any

import pytest

from actors.pool.pool import TargetPool
from models.engine_config import EngineConfig
from models.exactness import IDENTICAL, ROUNDED


class Started:
    """A pool whose actors have told this of themselves."""

    def __init__(self, *labels: str) -> None:
        self.ready = [
            SimpleNamespace(name=f"t{i}", description={"exactness": label, "pid": i})
            for i, label in enumerate(labels)
        ]
        self.members = {member.name: member for member in self.ready}


@pytest.mark.parametrize(
    ("labels", "holds"),
    [
        ((IDENTICAL, IDENTICAL), IDENTICAL),
        ((IDENTICAL, ROUNDED), ROUNDED),
        ((ROUNDED, IDENTICAL), ROUNDED),
    ],
)
def test_the_weakest_label_is_told(labels: tuple[str, ...], holds: str) -> None:
    targets: Any = Started(*labels)
    told = TargetPool(EngineConfig(target="t"), targets).describe()
    assert told == {"exactness": holds, "target_actors": 2, "draft_actors": 0}

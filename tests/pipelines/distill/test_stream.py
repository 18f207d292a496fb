"""`--states stream` without Ray: how many steps ahead fit in the object store."""

import pytest

from models.errors import InvalidOption
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.stream import fitting
from pipelines.options import from_mapping

GIVEN = {"target": "t", "output": "o", "prompts": "p", "states": "stream"}
MIB = 2**20


def config_of(**values):
    return from_mapping(DrafterOptions, {**GIVEN, **values})


@pytest.mark.parametrize(
    ("values", "room", "steps"),
    [
        ({}, 1000 * MIB, 4),
        ({}, 30 * MIB, 2),  # the third place is an exam's
        ({"workers": 2}, 50 * MIB, 2),
        ({"window": 9}, 1000 * MIB, 9),
        ({"window": 1}, 1000 * MIB, 1),
    ],
)
def test_as_many_steps_as_fit(values, room, steps):
    assert fitting(config_of(**values), 10 * MIB, 10 * MIB, room) == steps


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidOption, match="window=4 is not accepted: at most 2, by the object"):
        fitting(config_of(window=4), 10 * MIB, 10 * MIB, 30 * MIB)
    told = "2 workers need 30 MiB in the object store, 29 MiB of it may be used: a smaller"
    with pytest.raises(InvalidOption, match=told):
        fitting(config_of(workers=2), 10 * MIB, 10 * MIB, 29 * MIB)


def test_a_window_goes_with_streaming():
    with pytest.raises(InvalidOption, match="window=2 is not accepted: 1 or more, with states="):
        config_of(states="recompute", window=2)
    with pytest.raises(InvalidOption, match="window=0 is not accepted"):
        config_of(window=0)
    with pytest.raises(InvalidOption, match="one of recompute, stream"):
        config_of(states="stored")


def test_actors_and_workers_run_at_once():
    sizes = {"workers": 2, "target_actors": 3}
    assert config_of(**sizes).num_processes == 5
    assert config_of(**sizes, states="recompute").num_processes == 3

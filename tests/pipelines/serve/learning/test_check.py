"""What a server cannot learn with is refused by name, before anything starts."""

from typing import Any

import pytest

from models.errors import InvalidOption, PacelineError
from pipelines.serve.application import build, serve_config
from pipelines.serve.config import ServeConfig
from pipelines.serve.learning.check import check_learning

TARGET, DRAFT = "examples/models/text-target", "examples/models/text-draft"
LEARNS: dict[str, Any] = {"target": TARGET, "drafter": DRAFT, "learn": "out"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"verify": "rejection"}, "verify='rejection' is not accepted: match with --learn"),
        ({"arithmetic": "fast"}, "arithmetic='fast' is not accepted: steady with --learn"),
        ({"draft_actors": 1}, "draft_actors=1 is not accepted: 0 with --learn"),
        ({"address": "auto"}, "address='auto' is not accepted: none with --learn"),
        ({"learn": ""}, "learn='' is not accepted: a folder"),
        ({"student": "s", "drafter": "none"}, "learn='out' is not accepted: only None"),
        ({"drafter": "lookup"}, "drafter='lookup' is not accepted: the folder of a draft model"),
        ({"drafter": "none"}, "drafter='none' is not accepted: the folder of a draft model"),
        ({"target": "examples/models/digits-raster"}, "'paceline_raster' is not trained"),
    ],
)
def test_what_cannot_be_honoured_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(PacelineError, match=told):
        check_learning([ServeConfig(**LEARNS | changed)])


def test_one_model_of_several_learns() -> None:
    plain, learning = ServeConfig(target=TARGET), ServeConfig(**LEARNS)
    check_learning([plain, learning])
    with pytest.raises(InvalidOption, match="one model of a server, not 2"):
        check_learning([learning, plain, learning])


def test_a_server_that_ray_serve_starts_does_not_learn() -> None:
    with pytest.raises(InvalidOption, match="has no process that trains"):
        serve_config(ServeConfig(**LEARNS))
    with pytest.raises(InvalidOption, match="has no process that trains"):
        build({**LEARNS, "host": "127.0.0.1"})

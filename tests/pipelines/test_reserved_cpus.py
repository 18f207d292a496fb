"""What a model process has of a given cluster where nobody says it."""

import logging

import pytest

from pipelines.engine_options import reserved_cpus
from pipelines.serve.config import ServeConfig

TARGET = "examples/models/text-target"


@pytest.mark.parametrize(
    ("options", "cpus", "told"),
    [
        ({}, None, False),
        ({"threads": 3}, None, False),
        ({"address": "auto", "threads": 3}, 3.0, False),
        ({"address": "auto"}, 1.0, True),
    ],
)
def test_one_thread_by_default_is_told(
    options: dict[str, object], cpus: float | None, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pipelines")
    assert reserved_cpus(ServeConfig(target=TARGET, **options)) == cpus  # type: ignore[arg-type]
    assert ("each model process has 1 thread" in caplog.text) == told

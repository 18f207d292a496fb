"""A run that makes new texts while it trains, killed while it makes them, comes to the same.

CHAOS=N: so many moments, a minute each. The one that is killed streams the target's states, the
other one holds its target. Drivers run on the cluster of the tests, which outlives them.
"""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models.training.log import METRICS, read_lines
from tests.pipelines.distill.whole_runs import assert_nothing_is_held, outcome, start
from tests.pipelines.generate.inprocess import write_prompts

OPTIONS = {"kind": "eagle", "train-steps": 16, "save-every": 6, "exam-every": 8}
OPTIONS |= {"records": 23, "renew": 4}  # of 23 texts, 17 are learned from: new ones after step 9
SEEDS = range(int(os.environ.get("CHAOS", "0")))
LATEST_S = 8.0  # most of it, the actor that makes the new texts loads
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("ray_cluster"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_prompts(tmp_path_factory.mktemp("in") / "prompts.jsonl", 23))


@pytest.fixture(scope="module")
def undisturbed(
    checkpoints: dict[str, str], source: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a run comes to that nobody kills and that holds its target."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    options = {"prompts": source, **OPTIONS}
    assert start(checkpoints["target"], run, options).wait(timeout=300) == 0
    return outcome(run)


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_while_new_texts_are_made(
    seed: int,
    checkpoints: dict[str, str],
    source: str,
    undisturbed: dict[str, Any],
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    options = {"prompts": source, "states": "stream", **OPTIONS}
    begin = partial(start, checkpoints["target"], run, options)
    process = begin()
    while not (run / "renewed" / "2").exists():
        assert process.poll() is None, "it has ended before new texts were made"
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, LATEST_S))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = len(read_lines(run / "train" / METRICS))
    committed = (run / "_stages" / "records-2.json").exists()
    print(f"seed {seed}: killed after step {done}, new texts committed: {committed}")
    assert begin().wait(timeout=300) == 0
    found = outcome(run)
    assert "renewed/2/texts.parquet" in found["texts"]
    assert found == undisturbed
    assert_nothing_is_held()

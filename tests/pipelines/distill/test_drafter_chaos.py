"""Trainings of every kind of drafter whose processes are killed come to what undisturbed ones do.

CHAOS=N: so many moments for each kind, and each victim in turn; half a minute each. Drivers run on
the cluster of the tests, which outlives them.
"""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.drafting.distil.texts import PROMPT, TOKENS
from models.training.log import METRICS, read_lines
from tests.pipelines.distill.killed import kill_one
from tests.pipelines.distill.whole_runs import assert_nothing_is_held, outcome, start

KINDS = ("model", "medusa", "hydra", "eagle")
VICTIMS = {"driver": "", "worker": "RayTrainWorker", "teacher": "ray::TeacherActor"}
STEPS = 150
OFTEN = {"train-steps": STEPS, "save-every": 20, "exam-every": 50}
SEEDS = range(int(os.environ.get("CHAOS", "0")))
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("ray_cluster"),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Texts, as a server that learns records them."""
    chance = random.Random(0)
    texts = [[chance.randrange(256) for _ in range(40)] for _ in range(60)]
    table = pa.table({PROMPT: [t[:10] for t in texts], TOKENS: [t[10:] for t in texts]})
    file = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(table, file)
    return str(file)


@pytest.fixture(scope="module", params=KINDS)
def undisturbed(
    request: pytest.FixtureRequest,
    checkpoints: dict[str, str],
    rows: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, dict[str, Any]]:
    """A kind, and what a run of it comes to that nobody kills and that holds its target."""
    kind, run = request.param, tmp_path_factory.mktemp("undisturbed") / request.param
    options = {"kind": kind, "data": rows, **OFTEN}
    assert start(checkpoints["target"], run, options).wait(timeout=300) == 0
    return kind, outcome(run)


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_and_resumed(
    seed: int,
    checkpoints: dict[str, str],
    rows: str,
    undisturbed: tuple[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    kind, expected = undisturbed
    chance = random.Random(f"{kind} {seed}")
    victim = list(VICTIMS)[(seed + KINDS.index(kind)) % len(VICTIMS)]
    states = "stream" if victim == "teacher" else chance.choice(["stream", "recompute"])
    after, run = chance.randrange(STEPS - 20), tmp_path / "run"
    begin = partial(
        start, checkpoints["target"], run, {"kind": kind, "data": rows, "states": states, **OFTEN}
    )
    process = begin()
    while len(read_lines(run / "train" / METRICS)) <= after:
        assert process.poll() is None, "it has ended before anything was killed"
        time.sleep(0.01)
    if victim == "driver":
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process = begin()
    else:
        assert kill_one(psutil.Process(), VICTIMS[victim]) is not None
    assert process.wait(timeout=300) == 0
    print(f"{kind}, seed {seed}: {victim} killed after step {after}, states {states}")
    assert outcome(run) == expected
    assert_nothing_is_held()

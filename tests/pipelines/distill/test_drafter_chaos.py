"""Trainings of every kind of drafter whose processes are killed come to what undisturbed ones do.

CHAOS=N: so many moments for each kind, and each victim in turn; half a minute each. Drivers run on
the cluster of the tests, which outlives them.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from models.drafting.distil.texts import PROMPT, TOKENS
from models.training.log import EXAMS, METRICS, read_lines
from tests.pipelines.distill.killed import kill_one

KINDS = ("model", "medusa", "hydra", "eagle")
VICTIMS = {"driver": "", "worker": "RayTrainWorker", "teacher": "ray::TeacherActor"}
STEPS = 150
SIZES = {
    "train-steps": STEPS,
    "train-batch": 8,
    "save-every": 20,
    "exam-every": 50,
    "exam-prompts": 3,
    "exam-tokens": 8,
    "length": 48,
    "depth": 3,
    "rate": 1e-3,
    "threads": 1,
}
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


def distill(
    kind: str, target: str, rows: str, output: Path, states: str
) -> "subprocess.Popen[bytes]":
    flags = [str(word) for name, value in SIZES.items() for word in (f"--{name}", value)]
    words = ["distill", "drafter", "--kind", kind, "--target", target, "--data", rows, *flags]
    words += ["--states", states, "--output", str(output), "--no-progress"]
    words += ["--address", ray.get_runtime_context().gcs_address]
    command = [sys.executable, "-m", "pipelines.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def outcome(run: Path) -> dict[str, Any]:
    """Losses and exams of all steps, the drafter's weights."""
    weights = {file.name: file.read_bytes() for file in (run / "export").glob("*.safetensors")}
    assert weights
    return {
        "losses": [(line["step"], line["loss"]) for line in read_lines(run / "train" / METRICS)],
        "exams": (run / "train" / EXAMS).read_bytes(),
        "weights": weights,
        "about": json.loads((run / "export" / "drafter.json").read_text()),
    }


@pytest.fixture(scope="module")
def undisturbed(
    checkpoints: dict[str, str], rows: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What a run of each kind comes to that nobody kills and that holds its target."""
    found = {}
    for kind in KINDS if SEEDS else ():
        run = tmp_path_factory.mktemp("undisturbed") / kind
        assert distill(kind, checkpoints["target"], rows, run, "recompute").wait(timeout=300) == 0
        found[kind] = outcome(run)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_and_resumed(
    kind: str,
    seed: int,
    checkpoints: dict[str, str],
    rows: str,
    undisturbed: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    chance = random.Random(f"{kind} {seed}")
    victim = list(VICTIMS)[(seed + KINDS.index(kind)) % len(VICTIMS)]
    states = "stream" if victim == "teacher" else chance.choice(["stream", "recompute"])
    after, run = chance.randrange(STEPS - 20), tmp_path / "run"
    process = distill(kind, checkpoints["target"], rows, run, states)
    while len(read_lines(run / "train" / METRICS)) <= after:
        assert process.poll() is None, "it has ended before anything was killed"
        time.sleep(0.01)
    if victim == "driver":
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process = distill(kind, checkpoints["target"], rows, run, states)
    else:
        assert kill_one(psutil.Process(), VICTIMS[victim]) is not None
    assert process.wait(timeout=300) == 0
    print(f"{kind}, seed {seed}: {victim} killed after step {after}, states {states}")
    assert outcome(run) == undisturbed[kind]

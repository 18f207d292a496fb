"""A distillation into a folder on S3, killed and resumed, comes to what an undisturbed one does."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import storage
from models.training.log import EXAMS, METRICS, read_lines
from tests.pipelines.generate.image_jobs import raster
from tests.s3_process import S3Process

__all__ = ["raster"]  # a fixture
STEPS = 200
SIZES = {
    "records": 60,
    "train-batch": 8,
    "eval-rows": 20,
    "threads": 1,
    "train-steps": STEPS,
    "save-every": 20,
    "exam-every": 40,
}
SEEDS = range(int(os.environ.get("CHAOS", "0")))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def distill(target: str, output: object) -> "subprocess.Popen[bytes]":
    flags = [str(word) for name, value in SIZES.items() for word in (f"--{name}", value)]
    words = ["distill", "student", "--target", target, "--output", str(output), *flags]
    command = [sys.executable, "-m", "pipelines.cli", *words, "--no-progress"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def undisturbed(raster: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run comes to that nobody kills, on this machine's disk."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert distill(raster, run).wait(timeout=300) == 0
    return outcome(str(run))


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder of an S3 server, and the environment that leads there."""
    server = S3Process()
    yield server.bucket(monkeypatch) + "/run"
    server.end()


def outcome(run: str) -> dict[str, Any]:
    """Losses and exams of all steps, the student's weights, the figures of its images."""

    def read(name: str) -> bytes:
        return storage.read_bytes(f"{run}/{name}")

    metrics = [json.loads(line) for line in read(f"train/{METRICS}").splitlines()]
    return {
        "losses": [(line["step"], line["loss"]) for line in metrics],
        "exams": read(f"train/{EXAMS}"),
        "weights": read("export/model.safetensors"),
        "values": json.loads(read("evaluation/evaluation.json"))["values"],
    }


def steps_in(cache: Path) -> int:
    """Steps that were trained in the run that a cache mirrors."""
    found = list(cache.glob(f"runs/*/train/{METRICS}"))
    return len(read_lines(found[0])) if found else 0


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_and_resumed(seed, raster, undisturbed, output, tmp_path, monkeypatch) -> None:
    """CHAOS=N: so many moments; the same machine goes on with the run, or another one."""
    chance = random.Random(seed)
    kill_after, elsewhere = chance.randrange(STEPS), bool(seed % 2)
    first = tmp_path / "first"
    monkeypatch.setenv("PACELINE_CACHE", str(first))
    run = distill(raster, output)
    while steps_in(first) <= kill_after:
        assert run.poll() is None, "it has ended before it was killed"
        time.sleep(0.02)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    if elsewhere:
        monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "second"))
    began = time.monotonic()
    assert distill(raster, output).wait(timeout=300) == 0
    where = "another machine" if elsewhere else "the same machine"
    rest_s = time.monotonic() - began
    print(f"seed {seed}: killed after step {kill_after}; {where} took {rest_s:.0f} s for the rest")
    assert outcome(output) == undisturbed

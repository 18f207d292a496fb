"""The S3 server goes away for 20 s at a random moment of a real job: the rows are a local run's."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.storage import storage
from tests.pipelines.generate.inprocess import outcome
from tests.pipelines.generate.reader import watched
from tests.pipelines.generate.test_lost_nodes import EXAMPLES, MAX_TOKENS, TARGET
from tests.s3_process import BUCKET as NAME
from tests.s3_process import OUTAGES, S3Process

DOWN_S = 20.0
SAMPLES, SHARD_ROWS, SHARDS = 20, 1, 24  # a shard for each prompt
STARTING_S = 12.0  # in which the first shard is not committed yet
LATER_S = 0.5  # at most, after the shard that the outage waits for
BUCKET = f"s3://{NAME}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Process]:
    """A server with the prompts, and the environment that leads there."""
    server = S3Process()
    server.bucket(monkeypatch)
    prompts = (EXAMPLES / "prompts.jsonl").read_bytes()
    storage.publish(f"{BUCKET}/in/prompts.jsonl", prompts)
    yield server
    server.end()


def generate(source: object, output: object, errors: Path) -> "subprocess.Popen[bytes]":
    options = {
        "target": TARGET,
        "input": source,
        "output": output,
        "n": SAMPLES,
        "max-tokens": MAX_TOKENS,
        "shard-rows": SHARD_ROWS,
        "batch-size": 4,
        "threads": 1,
    }
    flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "pipelines.cli", "generate", "--no-progress", *flags]
    with errors.open("wb") as file:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The rows of an undisturbed job on this machine's disk."""
    folder = tmp_path_factory.mktemp("local")
    job = generate(EXAMPLES / "prompts.jsonl", folder / "out", folder / "errors")
    assert job.wait(timeout=200) == 0, (folder / "errors").read_text()
    return outcome(str(folder / "out"))


def await_shards(job: "subprocess.Popen[bytes]", count: int) -> None:
    def committed() -> int:
        found = [info.name for info in storage.list_files(f"{BUCKET}/out/_manifest")]
        return sum(name.startswith("0") for name in found)

    while job.poll() is None and committed() < count:
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("CHAOS", "0"))))
def test_rows_survive_an_outage(seed: int, local, server: S3Process, tmp_path: Path) -> None:
    """CHAOS=N: so many moments and kinds of an outage; a minute each."""
    chance, errors = random.Random(seed), tmp_path / "errors"
    kind, shards = chance.choice(OUTAGES), chance.randrange(SHARDS * 2 // 3)
    job = generate(f"{BUCKET}/in", f"{BUCKET}/out", errors)
    with watched(f"{BUCKET}/out", rows=SAMPLES):
        if shards:
            await_shards(job, shards)
        time.sleep(chance.uniform(0, LATER_S if shards else STARTING_S))
        assert job.poll() is None, errors.read_text()
        server.be_down(kind, DOWN_S)
        assert job.poll() is None, errors.read_text()
        back = time.monotonic()
        assert job.wait(timeout=200) == 0, errors.read_text()
        later = time.monotonic() - back
    print(f"seed {seed}: {kind} after {shards} shards; ended {later:.0f} s after the outage")
    assert outcome(f"{BUCKET}/out") == local
    assert "lease.json" not in [info.name for info in storage.list_files(f"{BUCKET}/out/_manifest")]

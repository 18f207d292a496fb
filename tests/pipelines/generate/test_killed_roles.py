"""SIGKILL of a target, a draft actor and the driver of a real job, in random order and moments."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.pipelines.generate.reader import watched
from tests.pipelines.generate.test_killed_driver import committed_shards
from tests.pipelines.generate.test_lost_nodes import EXAMPLES, MAX_TOKENS, TARGET, undisturbed

DRIVER = "driver"
ROLES = ("ray::TargetActor", "ray::DraftActor", DRIVER)
SAMPLES, SHARD_ROWS = 24, 1
LATER_S = 0.5  # at most, after the shard that a kill waits for


class Job:
    """`paceline generate`, started again when its driver was killed."""

    def __init__(self, output: Path) -> None:
        self.output, self.errors = output, output.with_suffix(".err")
        self.start()

    def start(self) -> None:
        options = {
            "target": TARGET,
            "drafter": EXAMPLES / "models" / "text-draft",
            "input": EXAMPLES / "prompts.jsonl",
            "output": self.output,
            "n": SAMPLES,
            "max-tokens": MAX_TOKENS,
            "target-actors": 2,
            "draft-actors": 1,
            "shard-rows": SHARD_ROWS,
            "batch-size": 4,
            "threads": 1,
        }
        flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        command = [sys.executable, "-m", "pipelines.cli", "generate", "--no-progress", *flags]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)

    @property
    def num_shards(self) -> int:
        return len(list(self.output.glob("_manifest/0*.json")))

    def kill(self, role: str) -> bool:
        """Whether there was one to kill."""
        if role == DRIVER:
            self.process.kill()
            self.process.wait()
            self.start()
            return True
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if role in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    return True
        return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("CHAOS", "0"))))
def test_rows_survive_kills_of_every_role(seed: int, tmp_path: Path) -> None:
    """CHAOS=N: so many orders and moments of the kills; a minute each."""
    chance = random.Random(seed)
    job, waits_for = Job(tmp_path / "out"), 1
    with watched(str(job.output), rows=SAMPLES):
        for role in chance.sample(ROLES, len(ROLES)):
            while job.num_shards < waits_for:
                assert job.process.poll() is None, job.errors.read_text()
                time.sleep(0.05)
            time.sleep(chance.uniform(0, LATER_S))
            assert job.kill(role), f"no {role}: the job is too short"
            waits_for = len(committed_shards(job.output)) + 1 + chance.randrange(3)  # all are whole
        assert job.process.wait(timeout=200) == 0, job.errors.read_text()
    assert "ended and is replaced" in job.errors.read_text()
    rows = pq.read_table(job.output).to_pylist()
    num_prompts = len((EXAMPLES / "prompts.jsonl").read_text().splitlines())
    assert len({row["seed"] for row in rows}) == len(rows) == SAMPLES * num_prompts
    assert [row["tokens"] for row in rows] == undisturbed(rows)

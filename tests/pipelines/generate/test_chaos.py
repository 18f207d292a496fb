"""Jobs on several nodes, from S3: whatever is killed, in any order, every row is there once.

One cluster and one pool run the jobs of all seeds. tests/pipelines/generate/test_killed_roles.py
kills the driver.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.pool.places import unplaced
from actors.pool.pool import TargetPool
from cluster.connect import connected
from cluster.storage import storage
from pipelines.generate import job as jobs
from pipelines.generate.config import GenerateConfig
from tests.nodes import Nodes, cluster_of
from tests.pipelines.generate.inprocess import outcome
from tests.pipelines.generate.reader import watched
from tests.pipelines.generate.test_lost_nodes import EXAMPLES, MAX_TOKENS, TARGET, undisturbed
from tests.s3_process import S3Process

# What dies: actors and tasks by the titles of their processes, and others.
TITLES = {
    "encoder": r"ray::.*MapBatches\(encode\)",
    "writer": "ray::WriterActor",
    "target": "ray::TargetActor",
    "draft": "ray::DraftActor",
}
ENCODER, NODE, HEAD = "encoder", "node", "head"
FAULTS = (*TITLES, NODE, HEAD)
SAMPLES, SHARDS = 24, 24  # a shard for each prompt
LATER_S, SOON_S = 0.5, 0.1  # at most, after the shard that a fault waits for; after its process
LOOK_S = 0.1
IMPATIENCE_S = 5.0  # after which lost places are looked for: soon enough for jobs of half a minute
SEEDS = range(int(os.environ.get("CHAOS", "0")))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Job:
    """A job that this process drives, in a thread."""

    def __init__(self, config: GenerateConfig, nodes: Nodes) -> None:
        self.config, self._nodes = config, nodes
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            jobs.generate(self.config)
        except BaseException as error:
            self._failure = error

    @property
    def num_shards(self) -> int:
        """Committed ones; raises what the job has raised."""
        if self._failure is not None:
            raise self._failure
        names = [info.name for info in storage.list_files(f"{self.config.output}/_manifest")]
        return sum(name.startswith("0") for name in names)

    def await_shards(self, count: int) -> None:
        while self.num_shards < min(count, SHARDS):
            time.sleep(LOOK_S)

    def await_end(self) -> None:
        self._thread.join()
        assert self.num_shards == SHARDS

    def suffer(self, fault: str, chance: random.Random) -> str:
        """One of the faults; what was hit."""
        if fault == NODE:
            return f"{self._nodes.replace(chance)} node"
        if fault == HEAD:
            self._nodes.restart_server()
        else:
            self._kill(TITLES[fault], chance.uniform(0, SOON_S))
        return fault

    def _kill(self, title: str, later_s: float) -> None:
        """A process of this title, a moment after there is one."""
        while not self._nodes.processes(title):
            assert self.num_shards < SHARDS, f"it has ended without {title}"
            time.sleep(LOOK_S)
        time.sleep(later_s)
        if not any(map(killed, self._nodes.processes(title))):
            self._kill(title, 0)


def killed(process: psutil.Process) -> bool:
    """By SIGKILL; False if it had ended."""
    with suppress(psutil.Error):
        process.send_signal(signal.SIGKILL)
        return True
    return False


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """With the prompts; the environment leads there."""
    server = S3Process()
    with pytest.MonkeyPatch.context() as patch:
        url = server.bucket(patch)
        storage.publish(f"{url}/in/prompts.jsonl", (EXAMPLES / "prompts.jsonl").read_bytes())
        yield url
    server.end()


@pytest.fixture(scope="module")
def nodes(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """They start with the environment that leads to the bucket; this process is connected."""
    others = {"target": (2,), "draft": (1,), "data": (1,)}
    gcs = tmp_path_factory.mktemp("gcs")
    with cluster_of(gcs, "head", others) as made, connected(made.address):
        yield made


def config_of(bucket: str, output: str) -> GenerateConfig:
    return GenerateConfig(
        target=str(TARGET),
        drafter=str(EXAMPLES / "models" / "text-draft"),
        input=f"{bucket}/in",
        output=output,
        n=SAMPLES,
        max_tokens=MAX_TOKENS,
        target_actors=2,
        draft_actors=1,
        shard_rows=1,
        batch_size=4,
        threads=1,
        address="auto",  # of no use: this process is connected
        progress=False,
    )


@pytest.fixture(scope="module")
def pool(nodes: Nodes, bucket: str) -> Iterator[TargetPool]:
    """As a job has it."""
    with pytest.MonkeyPatch.context() as patch, jobs._pool(config_of(bucket, "out")) as made:
        patch.setattr(unplaced, "PATIENCE_S", IMPATIENCE_S)
        patch.setattr(unplaced, "LOOK_EVERY_S", 1.0)
        patch.setattr(jobs, "_pool", lambda config: nullcontext(made))
        yield made


@pytest.fixture(scope="module")
def expected() -> dict[str, list[Any]]:
    """The rows of the first seed, whose tokens are compared with those of a bare loop."""
    return {}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("pool")
def test_no_row_differs(
    seed: int, nodes: Nodes, bucket: str, expected: dict[str, list[Any]], tmp_path: Path
) -> None:
    """CHAOS=N: so many orders and moments of the faults; half a minute each."""
    chance = random.Random(seed)
    output = f"{bucket}/out-{seed}" if seed % 2 else str(tmp_path / "out")
    job = Job(config_of(bucket, output), nodes)
    faults = [ENCODER, *chance.sample(FAULTS[1:], len(FAULTS) - 1)]  # it ends before the others
    with watched(output, rows=SAMPLES) as reader:
        for fault in faults:
            before = job.num_shards
            if fault != ENCODER:
                job.await_shards(before + 1 + chance.randrange(2))
                time.sleep(chance.uniform(0, LATER_S))
            assert job.num_shards < SHARDS, f"the job is too short for {faults}"
            began = time.monotonic()
            hit = job.suffer(fault, chance)
            job.await_shards(job.num_shards + 1)
            took = time.monotonic() - began
            sys.stdout.write(f"seed {seed}: {fault}: {hit}: next shard after {took:.1f} s\n")
        job.await_end()
        assert reader.looks > len(faults)  # not counting the look at the end
    rows = outcome(output)
    assert len({row["seed"] for row in rows}) == len(rows) == SAMPLES * SHARDS
    if not expected:
        assert [row["tokens"] for row in rows] == undisturbed(rows)
    assert rows == expected.setdefault("rows", rows)

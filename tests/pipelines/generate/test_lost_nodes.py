"""A job on several nodes: one is lost, then the cluster's own server; no row differs."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from actors.tokenizer import TokenizerActor
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.requests.request import Request, Sampling
from tests.nodes import Nodes, cluster_of

EXAMPLES = Path(__file__).parents[3] / "examples"
TARGET = EXAMPLES / "models" / "text-target"
MAX_TOKENS, SAMPLES, SHARD_ROWS = 40, 2, 4


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """A head, and two nodes for targets."""
    with cluster_of(tmp_path / "gcs", "head", {"target": (1, 1)}) as made:
        yield made


def start_job(address: str, output: Path, **more: object) -> "subprocess.Popen[str]":
    """`more`: options by their names in the configuration."""
    options = {
        "address": address,
        "target": TARGET,
        "input": EXAMPLES / "prompts.jsonl",
        "output": output,
        "n": SAMPLES,
        "max-tokens": MAX_TOKENS,
        "target-actors": 2,
        "shard-rows": SHARD_ROWS,
        "batch-size": 4,
        "threads": 1,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "pipelines.cli", "generate", "--no-progress", *flags]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env=dict(os.environ))


def await_shards(job: "subprocess.Popen[str]", output: Path, count: int) -> None:
    while job.poll() is None and len(list(output.glob("_manifest/0*.json"))) < count:
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)  # more than the waits within: for three nodes, and for the job
@pytest.mark.parametrize("seed", range(int(os.environ.get("CHAOS", "1"))))
def test_rows_survive_a_lost_node_and_a_lost_head_process(seed, nodes, tmp_path):
    """CHAOS=N: so many orders and moments of the faults."""
    chance = random.Random(seed)
    output = tmp_path / "out"
    job = start_job(nodes.address, output)
    faults = [nodes.lose, nodes.restart_server]
    chance.shuffle(faults)
    committed = 1
    for fault in faults:
        await_shards(job, output, committed)
        fault()
        committed += chance.randrange(3)
    _, errors = job.communicate(timeout=200)
    assert job.returncode == 0, errors
    assert "ended and is replaced" in errors
    rows = pq.read_table(output).to_pylist()
    num_prompts = len((EXAMPLES / "prompts.jsonl").read_text().splitlines())
    assert len({row["seed"] for row in rows}) == len(rows) == SAMPLES * num_prompts
    assert [row["tokens"] for row in rows] == undisturbed(rows)


def undisturbed(rows: list[dict[str, Any]]) -> list[list[int]]:
    """The tokens of the same requests, by one loop in this process."""
    tokenizer = TokenizerActor(str(TARGET))
    prompts = tokenizer.encode_batch([row["prompt"] for row in rows])
    config = EngineConfig(target=str(TARGET), device="cpu", batch_size=8, threads=1)
    loop = build_loop(config)  # several threads would wait for each other on a busy machine
    requests = [
        Request(
            id=str(i),
            prompt=tuple(prompt),
            seed=row["seed"],
            sampling=Sampling(max_tokens=MAX_TOKENS),
        )
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]
    found = {result.id: list(result.tokens) for result in loop.run(requests)}
    return [found[str(i)] for i in range(len(rows))]

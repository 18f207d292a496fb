"""A job on two hosts, whose link is cut while it runs: the rows are those of one loop."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.hosts import FAR, NEAR, Hosts
from tests.pipelines.generate.test_lost_nodes import EXAMPLES, MAX_TOKENS, TARGET, undisturbed

SAMPLES, SHARD_ROWS = 6, 2
NUM_PROMPTS = len((EXAMPLES / "prompts.jsonl").read_text().splitlines())
# Beyond the cut: the draft actor, or one of two targets.
ROLES = ("draft", "target") if int(os.environ.get("CHAOS", "0")) else ()
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("no network namespaces without iproute2")
    made = Hosts()
    try:
        try:
            made.join()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces, which need root: {error.stderr}")
        yield made
    finally:
        made.end()


def start_nodes(hosts: Hosts, far: str) -> None:
    """The head, for data, and a node for targets on one host; a node of a role on the other."""
    hosts.start(NEAR, "data", 1, head=True)
    hosts.start(NEAR, "target", 1)
    hosts.start(FAR, far, 1)


def start_job(hosts: Hosts, far: str, output: Path) -> "subprocess.Popen[bytes]":
    options = {
        "address": hosts.address,
        "target": TARGET,
        "input": EXAMPLES / "prompts.jsonl",
        "output": output,
        "n": SAMPLES,
        "max-tokens": MAX_TOKENS,
        "shard-rows": SHARD_ROWS,
        "batch-size": 4,
        "threads": 1,
    }
    if far == "draft":
        options |= {"drafter": EXAMPLES / "models" / "text-draft", "draft-actors": 1}
    else:
        options |= {"target-actors": 2}
    flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    log = output.with_suffix(".log")
    return hosts.run(NEAR, "pipelines.cli", "generate", "--no-progress", *flags, log=log)


def num_shards(output: Path) -> int:
    return len(list(output.glob("_manifest/0*.json")))


@pytest.mark.parametrize("far", ROLES)
def test_rows_survive_a_cut_between_hosts(far: str, hosts: Hosts, tmp_path: Path) -> None:
    """CHAOS=1: a minute each."""
    start_nodes(hosts, far)
    output = tmp_path / "out"
    job = start_job(hosts, far, output)
    while num_shards(output) < 2:
        assert job.poll() is None, output.with_suffix(".log").read_text()
        time.sleep(0.05)
    hosts.cut()
    assert num_shards(output) < NUM_PROMPTS * SAMPLES / SHARD_ROWS, "the job is too short"
    began = time.monotonic()
    code = job.wait(timeout=200)
    told = output.with_suffix(".log").read_text()
    print(f"{far}: ended {time.monotonic() - began:.0f} s after the cut\n{told}")
    assert code == 0, told
    if far == "target":  # without it, the job could not end
        assert "ended and is replaced" in told
    rows = pq.read_table(output).to_pylist()
    assert len({row["seed"] for row in rows}) == len(rows) == SAMPLES * NUM_PROMPTS
    assert [row["tokens"] for row in rows] == undisturbed(rows)

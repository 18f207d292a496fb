"""A node joins while a job runs: the job gets a target there, and no row differs."""

import json
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.nodes import cluster_of
from tests.pipelines.generate.test_lost_nodes import EXAMPLES, await_shards, start_job, undisturbed

TARGET_ACTOR = "ray::TargetActor"
SAMPLES = 6


@pytest.mark.skipif("CHAOS" not in os.environ, reason="CHAOS=N, or make chaos, runs it")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_uses_a_node_that_joins_while_it_runs(tmp_path: Path) -> None:
    output, trace = tmp_path / "out", tmp_path / "trace.json"
    last = json.loads((EXAMPLES / "prompts.jsonl").read_text().splitlines()[-1])["id"]
    growth = {"target_actors": 1, "max_target_actors": 2, "batch_size": 2, "n": SAMPLES}
    with cluster_of(tmp_path / "gcs", "head", {"target": (1,)}) as nodes:
        job = start_job(nodes.address, output, **growth, trace=trace, trace_ids=last)
        await_shards(job, output, 1)
        (first,) = nodes.processes(TARGET_ACTOR)
        first.suspend()  # the job must not end before the node has joined
        nodes.add("target")
        while job.poll() is None and not nodes.processes(TARGET_ACTOR, node=1):
            time.sleep(0.05)
        joined = job.poll() is None
        first.resume()
        _, errors = job.communicate(timeout=200)
    assert job.returncode == 0, errors
    assert joined
    assert len(targets_in(trace)) == 2  # of the last prompt's completions
    rows = pq.read_table(output).to_pylist()
    num_prompts = len((EXAMPLES / "prompts.jsonl").read_text().splitlines())
    assert len({row["seed"] for row in rows}) == len(rows) == SAMPLES * num_prompts
    assert [row["tokens"] for row in rows] == undisturbed(rows)


def targets_in(trace: Path) -> set[str]:
    """The target actors of a trace."""
    events = json.loads(trace.read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    return {name for name in names if name.startswith("target-")}

"""A job whose driver is outside of the cluster (`--address ray://...`): the rows of a local one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.head import started
from tests.pipelines.generate.inprocess import outcome
from tests.pipelines.generate.test_lost_nodes import EXAMPLES, TARGET


def generate(output: Path, environment: dict[str, str], *words: str) -> None:
    options = {"target": TARGET, "input": EXAMPLES / "prompts.jsonl", "output": output}
    sizes = {"max-tokens": 8, "batch-size": 8, "threads": 1, "shard-rows": 8}
    flags = [
        str(word) for name, value in (options | sizes).items() for word in (f"--{name}", value)
    ]
    command = [sys.executable, "-m", "pipelines.cli", "generate", "--no-progress", *flags, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("CHAOS" not in os.environ, reason="CHAOS=N, or make chaos, runs it")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_outside_of_the_cluster_writes_the_same_rows(tmp_path: Path) -> None:
    with started(num_cpus=2) as head:
        generate(tmp_path / "far", head.environment, "--address", head.client_address)
        generate(tmp_path / "near", head.environment)
    assert outcome(str(tmp_path / "far")) == outcome(str(tmp_path / "near"))

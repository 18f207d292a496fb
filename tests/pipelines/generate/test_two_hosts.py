"""A job on two hosts, each with a network of its own; the cable between them is cut meanwhile."""

import json
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.hosts import PORT, Host, two_hosts
from tests.nodes import NOTICED
from tests.pipelines.generate.reader import watched
from tests.pipelines.generate.test_lost_nodes import EXAMPLES, MAX_TOKENS, TARGET, undisturbed

SAMPLES = 6
WITHIN_S = 90.0


def targets(host: Host) -> list[psutil.Process]:
    return [each for each in host.processes() if "ray::TargetActor" in " ".join(each.cmdline())]


@pytest.mark.slow
def test_the_other_host_takes_over_when_one_is_cut_off(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-token-of-these-two-hosts-alone-0123456789")
    output, errors = tmp_path / "out", tmp_path / "errors"
    with two_hosts() as (first, second), watched(str(output), rows=SAMPLES):
        settings = f"--system-config={json.dumps(NOTICED)}"
        head = ["--head", f"--port={PORT}", settings, "--include-dashboard=false"]
        first.start_ray("target", tmp_path / "first", *head)
        address = f"{first.address}:{PORT}"
        second.start_ray("target", tmp_path / "second", f"--address={address}")
        options = {
            "address": address,
            "target": TARGET,
            "input": EXAMPLES / "prompts.jsonl",
            "output": output,
            "n": SAMPLES,
            "max-tokens": MAX_TOKENS,
            "target-actors": 2,
            "shard-rows": 1,
            "batch-size": 4,
            "threads": 1,
        }
        flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        with errors.open("wb") as out:
            words = [sys.executable, "-m", "pipelines.cli", "generate", "--no-progress", *flags]
            job = first.start(words, stderr=out)
        while len(list(output.glob("_manifest/0*.json"))) < 2:
            assert job.poll() is None, errors.read_text()
            time.sleep(0.05)
        assert [len(targets(host)) for host in (first, second)] == [1, 1]
        second.cut()
        assert job.wait(timeout=WITHIN_S) == 0, errors.read_text()
        assert "ended and is replaced" in errors.read_text()
    rows = pq.read_table(output).to_pylist()
    num_prompts = len((EXAMPLES / "prompts.jsonl").read_text().splitlines())
    assert len({row["seed"] for row in rows}) == len(rows) == SAMPLES * num_prompts
    assert [row["tokens"] for row in rows] == undisturbed(rows)

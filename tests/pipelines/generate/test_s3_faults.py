"""Jobs on an S3 server that refuses, breaks off or loses answers: the rows are a local run's."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.storage import storage
from models.requests.request import Result
from tests.flaky_s3 import FlakyS3
from tests.pipelines.generate.inprocess import (
    InProcessPool,
    make_config,
    outcome,
    run_job,
    write_prompts,
)

ROWS, SHARD_ROWS = 20, 4


class Stopped(Exception):
    """The driver ends here."""


class Stopping(InProcessPool):
    """Stops the job after some steps."""

    def take(self, timeout_s: float) -> list[Result]:
        if len(self.sizes) == 12:
            raise Stopped
        return super().take(timeout_s)


@pytest.mark.parametrize("seed", range(int(os.environ.get("CHAOS", "2"))))
def test_a_job_ends_with_the_rows_of_a_local_one(seed, tmp_path: Path, s3_bucket, monkeypatch):
    monkeypatch.setattr("cluster.storage.patience.FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("cluster.storage.s3.ANSWER_S", 0.5)
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", ROWS)
    local = make_config(
        tmp_path, input=str(prompts), output=str(tmp_path / "out"), shard_rows=SHARD_ROWS
    )
    run_job(local)
    storage.publish(f"{s3_bucket}/in/prompts.jsonl", prompts.read_bytes())
    remote = replace(local, input=f"{s3_bucket}/in", output=f"{s3_bucket}/out")
    flaky = FlakyS3(os.environ["AWS_ENDPOINT_URL"], rate=0.2, seed=seed)
    monkeypatch.setenv("AWS_ENDPOINT_URL", flaky.url)
    with pytest.raises(Stopped):
        run_job(remote, pool=Stopping())
    run_job(remote)  # goes on
    assert flaky.count > 5
    assert outcome(remote.output) == outcome(local.output)
    flaky.stop()

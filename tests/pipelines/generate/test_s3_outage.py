"""A job on S3 whose server goes away in the middle and comes back."""

import threading
import time
from dataclasses import replace
from pathlib import Path

from cluster.storage import storage
from models.requests.request import Result
from tests.pipelines.generate.inprocess import (
    InProcessPool,
    make_config,
    outcome,
    run_job,
    write_prompts,
)
from tests.s3_server import Server

DOWN_S = 4.0


class Interrupting(InProcessPool):
    """Stops the server after some steps and has it started again later."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self.timer = threading.Timer(DOWN_S, server.start)

    def take(self, timeout_s: float) -> list[Result]:
        if len(self.sizes) == 8:
            self._server.stop()
            self.timer.start()
        return super().take(timeout_s)


def test_the_job_waits_and_loses_nothing(tmp_path: Path, s3_server: Server) -> None:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 20)
    local = make_config(tmp_path, input=str(prompts), output=str(tmp_path / "out"), shard_rows=4)
    run_job(local)
    bucket = f"s3://{s3_server.bucket}"
    storage.publish(f"{bucket}/in/prompts.jsonl", prompts.read_bytes())
    remote = replace(local, input=f"{bucket}/in", output=f"{bucket}/out")
    pool, began = Interrupting(s3_server), time.monotonic()
    run_job(remote, pool=pool)
    pool.timer.join()
    assert time.monotonic() - began > DOWN_S
    assert outcome(remote.output) == outcome(local.output)
    names = [info.name for info in storage.list_files(remote.output)]
    assert "_manifest/lease.json" not in names

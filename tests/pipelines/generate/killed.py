"""A driver that is killed at the n-th moment of writing its output, in a process of its own."""

import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from cluster.storage import disk
from pipelines.generate.config import GenerateConfig
from tests.pipelines.generate.inprocess import InProcessPool, run_job


def run(config: GenerateConfig, kill_at: int, luck: int) -> None:
    """Run a job until the `kill_at`-th moment before, in or after a write."""
    moments = count()

    def moment() -> None:
        if next(moments) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    write_temporary = disk._write_temporary

    def half_first(path: Path, data: bytes) -> Path:
        half = path.with_name(f".{path.name}.half{disk.TEMPORARY}")
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(data[: len(data) // 2])
        moment()
        half.unlink()
        return write_temporary(path, data)

    disk._write_temporary = half_first
    for owner, name in [(Path, "replace"), (os, "link"), (Path, "unlink")]:
        setattr(owner, name, _watched(getattr(owner, name), moment))
    run_job(config, pool=InProcessPool(luck=luck))


def _watched(step: Callable[..., Any], moment: Callable[[], None]) -> Callable[..., Any]:
    def run_step(*args: Any, **kwargs: Any) -> Any:
        moment()
        result = step(*args, **kwargs)
        moment()
        return result

    return run_step

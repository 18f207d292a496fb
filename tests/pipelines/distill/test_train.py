"""How long workers of a training wait for each other: without Ray."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed

from actors.pool.role import Role
from pipelines.distill.train import TIMEOUT_S


def joined(file: Path, rank: int) -> "distributed.ProcessGroupGloo":
    store = distributed.FileStore(str(file), 2)
    return distributed.ProcessGroupGloo(store, rank, 2, timedelta(seconds=TIMEOUT_S))


def test_a_teacher_may_take_long_to_come_again() -> None:
    assert 2 * Role(name="teacher").busy_s < TIMEOUT_S


def test_a_worker_that_dies_ends_the_wait_of_the_others_at_once(tmp_path: Path) -> None:
    told, tell = os.pipe()
    if (child := os.fork()) == 0:
        try:
            joined(tmp_path / "store", 1)
            os.read(told, 1)
        finally:
            os._exit(0)  # as if it were killed: nothing is said
    group = joined(tmp_path / "store", 0)
    os.write(tell, b"!")
    with pytest.raises(RuntimeError, match=r"by peer|[Bb]roken pipe"):
        group.allreduce([torch.ones(3)]).wait()
    os.waitpid(child, 0)
    os.close(told)
    os.close(tell)

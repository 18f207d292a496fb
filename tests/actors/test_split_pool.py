"""A target that two processes hold: the tokens of one, and new ranks when one of them dies."""

import os
import signal
import time
from dataclasses import replace

import psutil
import pytest

from actors.pool.places.role import Role
from actors.pool.pool import TargetPool
from cluster.placement.placement import Node, shortage
from models.engine import build_loop
from models.errors import InvalidOption
from tests.actors.conftest import make_requests
from tests.models.checkpoints import save


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_tokens_and_the_death_of_a_rank(config, checkpoints, plain):
    """With a draft model; a killed rank takes the target with it, and no request is lost."""
    split = config(tensor_parallel=2, drafter=checkpoints["draft"])
    requests = make_requests(24)
    with TargetPool.start(split, num_cpus=1.0) as pool:
        told, before = pool.describe(), pool.pids()
        processes = [psutil.Process(pid) for pid in before.values()]
        assert told["tensor_parallel"] == 2
        assert set(before) == {"target-0", "target-0-rank-1"}
        pool.submit(requests)
        results = pool.take(timeout_s=60)
        os.kill(before["target-0-rank-1"], signal.SIGKILL)
        deadline = time.monotonic() + 120
        while pool.num_unfinished and time.monotonic() < deadline:
            results += pool.take(timeout_s=1.0)
        assert {result.id: result.tokens for result in results} == {
            request.id: plain[request.id] for request in requests
        }
        assert set(pool.pids()) == {"target-1", "target-1-rank-1"}
        assert pool.state().target_deaths == 1
        assert not psutil.wait_procs(processes, timeout=60)[1]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_tokens_of_a_target_that_transformers_runs(config, tmp_path):
    save(tmp_path, "gemma")
    whole, requests = config(target=str(tmp_path), drafter="lookup"), make_requests(6)
    plain = {result.id: result.tokens for result in build_loop(whole).run(requests)}
    with TargetPool.start(replace(whole, tensor_parallel=2), num_cpus=1.0) as pool:
        told = pool.describe()
        assert told["tensor_parallel"] == 2
        assert told["adapted"]
        pool.submit(requests)
        results, deadline = [], time.monotonic() + 120
        while pool.num_unfinished and time.monotonic() < deadline:
            results += pool.take(timeout_s=1.0)
    assert {result.id: result.tokens for result in results} == plain


def test_all_ranks_need_one_node():
    role = Role(name="target", num_cpus=2.0, num_gpus=1.0, ranks=4)
    nodes = [Node(name=f"n{i}", has={"CPU": 8.0, "GPU": 2.0}) for i in range(4)]
    told = shortage([role.demand(1)], nodes)
    assert told is not None
    assert told.startswith("no room for 1 target actor with 8 CPU and 4 GPU each")
    large = Node(name="large", has={"CPU": 8.0, "GPU": 4.0})
    assert shortage([role.demand(1)], [*nodes, large]) is None


def test_ranks_share_no_gpu():
    with pytest.raises(InvalidOption, match="a whole number of GPUs for each of several ranks"):
        Role(name="target", num_gpus=0.5, ranks=2)

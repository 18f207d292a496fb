"""A server on several nodes with open streams: whatever is killed behind them, they go on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import Nodes, cluster_of
from tests.pipelines.serve.following import Follower
from tests.ports import free_port

TITLES = {
    "target": "ray::TargetActor",
    "draft": "ray::DraftActor",
    "ingress": "ray::ServeReplica:paceline",  # it tokenizes, too
}
NODE, HEAD, INGRESS = "node", "head", "ingress"
FAULTS = (*TITLES, NODE, HEAD)
MODELS = Path(__file__).parents[3] / "examples" / "models"
TEXT = {"prompt": "def read_lines(path):\n", "max_tokens": 240, "ignore_eos": True}
BODIES = {
    "sampled": TEXT | {"seed": 1, "n": 2},
    "greedy": TEXT | {"temperature": 0, "frequency_penalty": 0.6},
    "stop": TEXT | {"seed": 2, "top_p": 0.9, "stop": ["    return None"]},
}
FOLLOWERS = 2
SOON_S = 1.0  # at most, after the event that a fault waits for
WITHIN_S = 120.0  # all of a server's processes are there again; lost places take most of a minute
SEEDS = range(int(os.environ.get("CHAOS", "0")))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The head carries what a server has one of."""
    others = {"target": (1, 1), "draft": (1,)}
    with cluster_of(tmp_path_factory.mktemp("gcs"), "data", others) as made:
        yield made


@pytest.fixture(scope="module")
def port(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server with two targets and a draft actor."""
    port, told = free_port(), tmp_path_factory.mktemp("server") / "told"
    options = {
        "address": nodes.address,
        "port": port,
        "target": MODELS / "text-target",
        "drafter": MODELS / "text-draft",
        "target-actors": 2,
        "draft-actors": 1,
        "batch-size": 4,
        "threads": 1,
        "log-level": "info",
    }
    flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "pipelines.cli", "serve", *flags]
    with told.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    while "serving" not in told.read_text():
        assert server.poll() is None, told.read_text()
        time.sleep(0.1)
    yield port
    alive = server.poll() is None
    server.send_signal(signal.SIGINT)
    server.wait(timeout=30)
    assert alive, told.read_text()


@pytest.fixture(scope="module")
def expected(port: int) -> dict[str, object]:
    client = Follower(port, BODIES, {})
    return {name: client.whole(body) for name, body in BODIES.items()}


def suffer(fault: str, nodes: Nodes, chance: random.Random) -> str:
    """One of the faults; what was hit."""
    if fault == NODE:
        return f"{nodes.replace(chance)} node"
    if fault == HEAD:
        nodes.restart_server()
        return fault
    chance.choice(nodes.processes(TITLES[fault])).send_signal(signal.SIGKILL)
    return fault


def processes(nodes: Nodes) -> dict[str, set[int]]:
    return {role: {each.pid for each in nodes.processes(title)} for role, title in TITLES.items()}


def await_events(followers: list[Follower], count: int) -> None:
    before = sum(each.events for each in followers)
    while sum(each.events for each in followers) < before + count:
        assert not any(each.wrong for each in followers), [each.wrong for each in followers]
        time.sleep(0.02)


def await_whole(nodes: Nodes, followers: list[Follower]) -> None:
    """All processes are there, and each client has had an answer that began after the fault."""
    deadline = time.monotonic() + WITHIN_S
    begun = [each.answers for each in followers]
    while {k: len(v) for k, v in processes(nodes).items()} != {
        "target": 2,
        "draft": 1,
        "ingress": 1,
    } or any(each.answers < count + 2 for each, count in zip(followers, begun, strict=True)):
        assert not any(each.wrong for each in followers), [each.wrong for each in followers]
        assert time.monotonic() < deadline, processes(nodes)
        time.sleep(0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_streams_go_on(seed: int, nodes: Nodes, port: int, expected: dict[str, object]) -> None:
    """CHAOS=N: so many orders and moments of the faults; half a minute each.

    Only the ingress's end may cut a connection; its client goes on from the last event's id.
    """
    chance = random.Random(seed)
    followers = [Follower(port, BODIES, expected) for _ in range(FOLLOWERS)]
    for each in followers:
        each.start()
    try:
        for fault in chance.sample(FAULTS, len(FAULTS)):
            await_events(followers, 20 + chance.randrange(100))
            time.sleep(chance.uniform(0, SOON_S))
            cuts = sum(each.cuts for each in followers)
            for each in followers:
                each.slowest_s = 0.0
            hit = suffer(fault, nodes, chance)
            await_whole(nodes, followers)
            slowest = max(each.slowest_s for each in followers)
            sys.stdout.write(f"seed {seed}: {fault}: {hit}: longest pause {slowest:.1f} s\n")
            if fault != INGRESS:
                assert sum(each.cuts for each in followers) == cuts
    finally:
        for each in followers:
            each.stop()
    assert [each.wrong for each in followers] == [[], []]

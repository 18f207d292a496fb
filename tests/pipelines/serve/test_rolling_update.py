"""Other options are deployed while streams are open: none is cut, and none differs.

KILLS=1 also kills the owner of the pool.
"""

import os
import re
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.pipelines.serve.following import Body, opened
from tests.pipelines.serve.test_killed_ingress import processes
from tests.ports import free_port

TEXT: Body = {"prompt": "def read_lines(path):\n", "max_tokens": 400, "ignore_eos": True}
BODIES: dict[str, Body] = {
    "sampled": TEXT | {"seed": 1, "n": 2, "logprobs": 1},
    "greedy": TEXT | {"temperature": 0, "frequency_penalty": 0.6},
    "words": TEXT
    | {
        "seed": 2,
        "ignore_eos": False,
        "structured_outputs": {"regex": "([a-z]{9} ){120}"},
    },
}
COMPLETIONS = sum(body.get("n", 1) for body in BODIES.values())
DRAIN_S = 120.0
OWNER = re.compile(r"ray::ServeReplica:paceline:owner-0")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def args(ray_cluster: None) -> Iterator[dict[str, Any]]:
    """Options of a server that Ray Serve has started."""
    from ray import serve

    given = {
        "target": "examples/models/text-target",
        "drafter": "lookup",
        "host": "127.0.0.1",
        "port": free_port(),
        "device": "cpu",
        "threads": 1,
        "drain_seconds": DRAIN_S,
    }
    serve.start(http_options={"host": given["host"], "port": given["port"]})
    deploy(given)
    yield given
    serve.shutdown()


def deploy(args: dict[str, Any]) -> None:
    """As Ray Serve does with a configuration; returns when what is new runs."""
    from ray import serve

    from pipelines.serve.application import build

    serve.run(build(args), name="paceline", route_prefix="/")


def completed(port: int) -> float:
    """Completions that the present owner of the pool has counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [each for family in families for each in family.samples]
    return sum(s.value for s in samples if s.name == "paceline_request_success_total")


def undisturbed_through(port: int, disturb: Callable[[], None]) -> None:
    """Streams of all kinds are whole, and the same, whatever `disturb` does while they are open."""
    with opened(port, BODIES) as streams:
        disturb()
        found = streams.found()
    clients = streams.clients.values()
    pause = max(each.slowest_s for each in clients)
    sys.stdout.write(f"\nthe longest pause was {pause:.1f} s\n")
    assert found == streams.expected
    assert [each.cuts for each in clients] == [0] * len(clients)
    assert completed(port) == COMPLETIONS, "they had ended before the next owner came"


def test_a_rolling_update_cuts_no_stream(args: dict[str, Any]) -> None:
    undisturbed_through(args["port"], lambda: deploy(args | {"max_queued": 5}))


@pytest.mark.skipif(not os.environ.get("KILLS"), reason="KILLS=1: half a minute more")
def test_streams_go_on_when_the_owner_of_the_pool_dies(args: dict[str, Any]) -> None:
    def kill() -> None:
        (owner,) = processes(OWNER)
        owner.send_signal(signal.SIGKILL)

    undisturbed_through(args["port"], kill)

"""An ingress is killed under open streams: they go on at another, and nothing of it remains.

KILLS=N kills N of them (default: one), or more until a stream was cut.
"""

import http.client
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import psutil
import pytest
import ray

from actors.manager.inbox import LEASE_S
from pipelines.serve.config import ServeConfig
from tests.pipelines.serve.following import Body, Follower
from tests.pipelines.serve.test_soak import Watch
from tests.ports import free_port

KILLS = int(os.environ.get("KILLS", "1"))
INGRESSES, FOLLOWERS, EVENTS = 2, 3, 20
WITHIN_S = 60.0
INGRESS = re.compile(r"ray::ServeReplica:paceline")
TEXT: Body = {"prompt": "def read_lines(path):\n", "max_tokens": 120, "ignore_eos": True}
BODIES: dict[str, Body] = {
    "sampled": TEXT | {"seed": 1, "n": 2},
    "greedy": TEXT | {"temperature": 0, "frequency_penalty": 0.6},
    "stop": TEXT | {"seed": 2, "top_p": 0.9, "stop": ["    return None"]},
}
LONG: Body = TEXT | {"max_tokens": 900, "seed": 3, "n": 8}

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300 + 30 * KILLS)]


@pytest.fixture(scope="module")
def server(ray_cluster: None) -> Iterator[Any]:
    from pipelines.serve.server import serving

    config = ServeConfig(
        target="examples/models/text-target",
        drafter="lookup",
        ingresses=INGRESSES,
        device="cpu",
        threads=1,
        port=free_port(),
    )
    with serving(config) as running:
        yield running


def port_of(server: Any) -> int:
    return int(server.url.rpartition(":")[2])


def processes(title: re.Pattern[str]) -> list[psutil.Process]:
    """Of this session's cluster, in the order of their ids."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if title.match(" ".join(process.cmdline())):
                found.append(process)
    return sorted(found, key=lambda each: each.pid)


def await_ingresses() -> list[psutil.Process]:
    deadline = time.monotonic() + WITHIN_S
    while len(found := processes(INGRESS)) < INGRESSES:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


class Leaver(Follower):
    """Its streams are not asked for again when they are cut."""

    def __init__(self, port: int) -> None:
        super().__init__(port, {}, {})
        self.lines = 0

    def listen(self) -> None:
        with suppress(OSError, ValueError, http.client.HTTPException):
            for _ in self._lines(LONG, ""):
                self.lines += 1


def unfinished(server: Any) -> int:
    return ray.get(server.models[0].manager.counts.remote())["unfinished"]


def test_the_requests_of_a_dead_ingress_end_soon(server: Any) -> None:
    """Not after their last token, nor when its lease ends: Ray tells of its death."""
    before, leaver = Watch(server).idle(), Leaver(port_of(server))
    listening = threading.Thread(target=leaver.listen, daemon=True)
    listening.start()
    while not leaver.lines:
        assert listening.is_alive()
        time.sleep(0.01)
    for each in await_ingresses():  # which of them has the stream is not told
        each.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    while unfinished(server):
        time.sleep(0.05)
    took = time.monotonic() - killed
    sys.stdout.write(f"\nthe requests ended {took:.1f} s after their ingress\n")
    await_ingresses()
    listening.join()
    after = Watch(server).idle()
    name = "request_errors_total error"
    assert after[name] - before[name] == LONG["n"], "they came to their end by themselves"
    assert took < LEASE_S
    assert after["kv_cache_usage_perc"] == 0


def test_streams_go_on_at_another_ingress(server: Any) -> None:
    watch, port = Watch(server), port_of(server)
    client = Follower(port, BODIES, {})
    expected = {name: client.whole(body) for name, body in BODIES.items()}
    followers = [Follower(port, BODIES, expected) for _ in range(FOLLOWERS)]
    for each in followers:
        each.start()
    try:
        for number in count():
            if number >= KILLS and any(each.cuts for each in followers):
                break
            heard = sum(each.events for each in followers)
            while sum(each.events for each in followers) < heard + EVENTS:
                assert not any(each.wrong for each in followers)
                time.sleep(0.01)
            await_ingresses()[number % INGRESSES].send_signal(signal.SIGKILL)
            answers = [each.answers for each in followers]
            deadline = time.monotonic() + WITHIN_S
            while any(e.answers < n + 2 for e, n in zip(followers, answers, strict=True)):
                assert not any(each.wrong for each in followers)
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        for each in followers:
            each.stop()
    await_ingresses()
    after = watch.idle()
    sys.stdout.write(
        f"\n{number} kills, {sum(each.cuts for each in followers)} streams cut, "
        f"{sum(each.answers for each in followers)} answers, "
        f"longest pause {max(each.slowest_s for each in followers):.1f} s\n"
    )
    assert [each.wrong for each in followers] == [[]] * FOLLOWERS
    assert unfinished(server) == 0
    assert after["kv_cache_usage_perc"] == 0

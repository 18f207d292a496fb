"""Streams whose ingress is killed go on at its successor, with Last-Event-ID.

Only in `make soak`: Ray Serve takes seconds to replace a replica, and 50 are killed.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import ray

from pipelines.serve.config import ServeConfig
from tests.pipelines.serve.sizes import SOAK
from tests.pipelines.serve.soaking import server_pids
from tests.pipelines.serve.test_cuts import FORMS, Event, connected, events, parted, received, told
from tests.ports import free_port

KILLS = int(os.environ.get("KILLS", "50"))
STREAMS = 4
WITHIN_S = 60.0
LEFT_S = 15.0  # a dead ingress counts as one after 10 s, and is looked for every second

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not SOAK, reason="only in `make soak`"),
]


@pytest.fixture
def server(ray_cluster: None, served_target: str, checkpoints: dict[str, str]) -> Iterator[Any]:
    from pipelines.serve.server import serving

    config = ServeConfig(
        target=served_target,
        drafter=checkpoints["draft"],
        batch_size=8,
        device="cpu",
        threads=1,
        port=free_port(),
    )
    with serving(config) as running:
        yield running


def persistent(url: str, form: str, seed: int) -> tuple[int, list[Event]]:
    """An answer from as many connections as it takes; their number, and all events."""
    found: list[Event] = []
    last, tries, deadline = None, 0, time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        tries += 1
        raw = b""
        with suppress(OSError), connected(url, form, seed, last) as made:
            while more := made.recv(4096):
                raw += more
        head, text = parted(raw)
        more_events = events(text) if head.split()[1:2] == [b"200"] else []
        sound = [each for each in more_events if not failed(each)]
        found = sound if last is None else found + sound
        last = next((each for each, _ in reversed(sound) if each), last)
        if ended(found):
            return tries, found
        time.sleep(0.3)
    raise AssertionError(f"{form} {seed}: no end after {tries} connections: {found[-3:]}")


def failed(event: Event) -> bool:
    """A stream's last event where its ingress lost the model."""
    said = event[1]
    return isinstance(said, dict) and ("error" in said or said.get("type") == "error")


def ended(found: list[Event]) -> bool:
    """Whether the last event says that it is the last one."""
    said = found[-1][1] if found else None
    if not isinstance(said, dict):
        return said == "[DONE]"
    kinds = ("message_stop", "response.completed", "response.incomplete")
    return said.get("type") in kinds


def test_an_ingress_s_streams_go_on_at_the_next_one(server: Any) -> None:
    chance = random.Random(0)
    asks = [(form, seed) for form in FORMS for seed in (1, 2)]
    expected = {ask: told(events(received(server.url, *ask, None, None))) for ask in asks}
    connections, slowest = 0, 0.0
    for _ in range(KILLS):
        chosen = chance.sample(asks, STREAMS)
        with ThreadPoolExecutor(STREAMS) as threads:
            streams = [threads.submit(persistent, server.url, *ask) for ask in chosen]
            time.sleep(chance.random() / 5)
            began = time.monotonic()
            os.kill(server_pids()["ServeReplica"], signal.SIGKILL)
            for ask, stream in zip(chosen, streams, strict=True):
                tries, found = stream.result()
                assert told(found) == expected[ask], ask
                connections += tries
            slowest = max(slowest, time.monotonic() - began)
    deadline = time.monotonic() + LEFT_S
    while left := ray.get(server.models[0].manager.counts.remote())["unfinished"]:
        assert time.monotonic() < deadline, f"{left} completions of dead ingresses run"
        time.sleep(0.2)
    streams_all = KILLS * STREAMS
    print(f"{KILLS} ingresses killed under {streams_all} streams, {connections} connections")
    print(f"slowest answer {slowest:.1f} s after the kill, nothing left")

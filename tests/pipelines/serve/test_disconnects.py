"""Clients that leave in eight manners, in all routes: nothing of them stays anywhere.

In `make soak`: 3,000 clients, and how long their completions stayed in the batch.
"""

import json
import logging
import random
import shutil
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from models.loop.token_loop import TokenLoop
from pipelines.serve.door.door import Door
from pipelines.serve.door.limits import Clients
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import Local, LoopPool, facts_of, local_ingresses
from tests.pipelines.serve.sizes import SOAK, sized

COUNT = sized(24, 3000)
TIMED = sized(0, 100)
THREADS = 4
MESSAGES = [{"role": "user", "content": "Tell me of Bergen."}]
LENGTH = 4096  # of answers that take minutes: nobody waits for their end
LONG = LENGTH - 96
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": ["Once", "Twice"], "n": 2, "max_tokens": LONG},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": LONG},
    "/v1/responses": {"input": MESSAGES, "max_output_tokens": LONG},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": LONG},
}
OURS = ("actors", "cluster", "models", "pipelines")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that take so long that no answer ends by itself while its client is there."""
    real = TokenLoop.step

    def step(self: Any) -> Any:
        time.sleep(0.05)
        return real(self)

    monkeypatch.setattr(TokenLoop, "step", step)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged, also of the HTTP server: exceptions that no route has answered."""
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def pool_and_local(
    served_target: str, checkpoints: dict[str, str], tmp_path: Path
) -> Iterator[tuple[list[LoopPool], Local]]:
    """Two ingresses, and the pool that they share once it has started."""
    target, draft = (
        lengthened(Path(folder), tmp_path / name)
        for name, folder in (("target", served_target), ("draft", checkpoints["draft"]))
    )
    config, pools = replace(demo_config(target, draft), max_length=LENGTH), list[LoopPool]()

    def start() -> LoopPool:
        pools.append(LoopPool.start(config))
        return pools[0]

    models: list[Any] = [(start, facts_of(config))]
    with local_ingresses(Door(max_body_bytes=2**20), models, count=2) as local:
        yield pools, local


def lengthened(folder: Path, place: Path) -> str:
    """A copy of a checkpoint with a longer context."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    told = json.dumps(config | {"max_position_embeddings": LENGTH})
    (place / "config.json").write_text(told)
    return str(place)


def opened(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60)


def request(route: str, seed: int, *, stream: bool, header: str = "") -> tuple[bytes, bytes]:
    """Head and body."""
    more = {"seed": seed, "stream": stream, "ignore_eos": True}
    body = json.dumps(BODIES[route] | more).encode()
    lines = [f"POST {route} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", *([header] if header else [])]
    return "\r\n".join([*lines, "", ""]).encode(), body


def read_some(made: socket.socket, chance: random.Random) -> None:
    """Up to a few events of the stream."""
    got = made.recv(4096)
    assert got.startswith(b"HTTP/1.1 200"), got
    for _ in range(chance.randrange(3)):
        made.recv(4096)


def in_the_headers(made: socket.socket, route: str, chance: random.Random) -> None:
    head, _ = request(route, 1, stream=True)
    made.sendall(head[: chance.randrange(len(head))])
    made.close()


def in_the_body(made: socket.socket, route: str, chance: random.Random) -> None:
    head, body = request(route, 1, stream=True)
    made.sendall(head + body[: chance.randrange(len(body))])
    made.close()


def at_once(made: socket.socket, route: str, chance: random.Random) -> None:
    """While the prompt waits or is read."""
    made.sendall(b"".join(request(route, chance.randrange(9), stream=True)))
    made.close()


def while_it_waits_for_all(made: socket.socket, route: str, chance: random.Random) -> None:
    made.sendall(b"".join(request(route, chance.randrange(9), stream=False)))
    time.sleep(chance.random() / 5)
    made.close()


def in_the_stream(made: socket.socket, route: str, chance: random.Random) -> None:
    made.sendall(b"".join(request(route, chance.randrange(9), stream=True)))
    read_some(made, chance)
    made.close()


def by_reset(made: socket.socket, route: str, chance: random.Random) -> None:
    """As when the client's machine is switched off and on."""
    made.sendall(b"".join(request(route, chance.randrange(9), stream=True)))
    read_some(made, chance)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.close()


def by_half_closing(made: socket.socket, route: str, chance: random.Random) -> None:
    """Nothing more is said, and the rest is read until the server closes, too."""
    made.sendall(b"".join(request(route, chance.randrange(9), stream=True)))
    read_some(made, chance)
    made.shutdown(socket.SHUT_WR)
    while made.recv(4096):
        pass
    made.close()


def with_the_proxy_s_header(made: socket.socket, route: str, chance: random.Random) -> None:
    """Ray Serve's proxy obeys it; the ingress does not."""
    header = "x-request-disconnect-disabled: ?1"
    made.sendall(b"".join(request(route, chance.randrange(9), stream=True, header=header)))
    read_some(made, chance)
    made.close()


Manner = Callable[[socket.socket, str, random.Random], None]
MANNERS: tuple[Manner, ...] = (
    in_the_headers,
    in_the_body,
    at_once,
    while_it_waits_for_all,
    in_the_stream,
    by_reset,
    by_half_closing,
    with_the_proxy_s_header,
)


def leave(urls: list[str], number: int) -> None:
    """One client of one manner."""
    chance = random.Random(number)
    route = chance.choice(list(BODIES))
    MANNERS[number % len(MANNERS)](opened(urls[number // 8 % 2]), route, chance)


def remains(pool: LoopPool, local: Local) -> dict[str, int]:
    """All that a client may leave behind; nothing is 0."""
    loop, manager = pool.loop, local.managers[0]
    exchanges = local.exchanges
    return {
        "requests of the loop": loop.num_unfinished,
        "ids of the loop": len(loop._ids),
        "blocks": loop._cache._blocks.count - loop._cache._blocks.num_free,
        "rows": int(loop._cache.rooms.sum()),
        "noise": len(loop._noise._slots),
        "updates": len(loop.take_updates()) if not loop.num_unfinished else 0,
        "owners": len(manager._owners),
        "inboxes": sum(len(inbox.open) for inbox in manager._inboxes.values()),
        "tallies": len(manager._tally._open),
        "calls": sum(len(exchange._calls) for exchange in exchanges),
        "holds": sum(_held(exchange.clients) for exchange in exchanges),
    }


def _held(clients: Clients) -> int:
    return sum(clients._held.values())


def left_behind(pool: LoopPool, local: Local, *, within_s: float = 30.0) -> dict[str, int]:
    """What remains once nothing changes any more, or too late."""
    deadline = time.monotonic() + within_s
    while any((found := remains(pool, local)).values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return {name: number for name, number in found.items() if number}


def is_of_the_server(record: logging.LogRecord) -> bool:
    """Not of a library that warns of something else."""
    return record.name == "uvicorn.error" or record.name.partition(".")[0] in OURS


@pytest.mark.usefixtures("slow")
def test_nothing_stays_of_clients_that_left(
    pool_and_local: Any, errors: pytest.LogCaptureFixture
) -> None:
    """Neither in memory, nor as an error in the log."""
    pools, local = pool_and_local
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(partial(leave, local.urls), range(COUNT)))
    assert left_behind(pools[0], local) == {}
    counts = local.managers[0]._tally.counts
    assert set(counts.ended) == {"cancelled"}, counts.ended  # none had the time to end
    assert counts.ended["cancelled"] > COUNT / 2
    assert [r.getMessage() for r in errors.records if is_of_the_server(r)] == []
    print(f"{COUNT} clients left in {len(MANNERS)} manners; nothing of them remains")


@pytest.mark.skipif(not SOAK, reason="a time, which only `make soak` looks at")
def test_completions_leave_the_batch_soon(pool_and_local: Any) -> None:
    pools, local = pool_and_local
    took = []
    for number in range(TIMED):
        made = opened(local.urls[0])
        in_the_stream(made, "/v1/completions", random.Random(number))
        began = time.perf_counter()
        while pools[0].loop.num_unfinished:
            time.sleep(0.001)
        took.append(1e3 * (time.perf_counter() - began))
    print(f"out of the batch after {statistics.median(took):.0f} ms, at most {max(took):.0f}")
    assert statistics.median(took) < 150

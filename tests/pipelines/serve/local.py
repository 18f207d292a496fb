"""A server without Ray: the real app and manager over a token loop in this process."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import uvicorn

from actors.desk import refusal
from actors.manager import manager as managing
from actors.messages import PoolState
from models.engine import build_loop, change_drafter
from models.engine_config import EngineConfig
from models.exactness import IDENTICAL
from pipelines.serve.app import build_app
from pipelines.serve.door.door import Door
from pipelines.serve.generation.facts import Facts

QUEUED = 64
DOOR = ("limits", "key_hashes", "urgent_hashes", "admin_hashes", "max_body_bytes")


def _stop(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event, pool: Any) -> None:
    """End the pool's thread."""
    loop.call_soon_threadsafe(stopped.set)
    raise SystemExit


class LoopPool:
    """What a manager needs of a TargetPool, by one loop that steps when results are taken."""

    def __init__(self, loop: Any, config: EngineConfig, **told: Any) -> None:
        """`told`: what it says of itself. It says that answers repeat also without kernels."""
        self.loop, self._refused, self._config = loop, [], config
        self._told = {"exactness": IDENTICAL, **told}

    @classmethod
    def start(cls, config: EngineConfig, **told: Any) -> "LoopPool":
        return cls(build_loop(config), config, **told)

    @property
    def drafter(self) -> "LoopPool":
        return self

    def offer(self, drafter: str) -> list[Any]:
        change_drafter(self.loop, replace(self._config, drafter=drafter))
        return []

    def settle(self, *, keep: bool) -> None:
        assert keep

    def __enter__(self) -> "LoopPool":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    @property
    def num_unfinished(self) -> int:
        return self.loop.num_unfinished + len(self._refused)

    def submit(self, requests: Any) -> None:
        for request in requests:
            try:
                self.loop.submit(request)
            except Exception as error:
                self._refused.append(refusal(request.id, error))

    def cancel(self, ids: Any) -> None:
        for each in ids:
            self.loop.cancel(each)

    def take(self, timeout_s: float) -> list[Any]:
        refused, self._refused = self._refused, []
        with torch.inference_mode():
            return refused + (self.loop.step() if self.loop.num_unfinished else [])

    def take_updates(self) -> list[Any]:
        return list(self.loop.take_updates())

    def describe(self) -> dict[str, Any]:
        return {**self.loop.describe(), "max_length": self.loop.max_length, **self._told}

    def pids(self) -> dict[str, int]:
        return {}

    def state(self) -> PoolState:
        return PoolState(figures=self.loop.figures(), target_actors=1, draft_actors=0)

    def ask_loads(self) -> list[Any]:
        async def load() -> Any:
            return self.loop.load()

        return [load()]


class LocalManager(managing.Manager):
    """Its pool's thread can end."""

    def _run(self, *arguments: Any) -> None:
        with suppress(SystemExit):
            super()._run(*arguments)


class Handle:
    """Methods as those of an actor's handle: `handle.name.remote(...)`."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._manager, name)

        class Call:
            remote = staticmethod(method)

        return Call


def facts_of(config: EngineConfig, **changed: Any) -> Facts:
    values: dict[str, Any] = {
        "name": "demo",
        "checkpoint": config.target,
        "kind": "text",
        "fingerprint": "fp",
        "others": "",
        "exactness": IDENTICAL,
        "created": 1,
        "max_unfinished": QUEUED,
    }
    return Facts(**values | changed)


@contextmanager
def local_server(config: EngineConfig, **changed: Any) -> Iterator[str]:
    """The URL of a server of this target; `changed`: fields of its Facts and its Door.

    `told`: what the target says of itself.
    """
    start = partial(LoopPool.start, config, **changed.pop("told", {}))
    of_door = {name: changed.pop(name) for name in DOOR if name in changed}
    door = Door(**{"max_body_bytes": 2**20} | of_door)
    with local_models(door, [(start, facts_of(config, **changed))]) as url:
        yield url


@contextmanager
def local_models(door: Door, models: list[tuple[Any, Facts]]) -> Iterator[str]:
    """The URL of a server of several models, each with what starts its pool."""
    with local_ingresses(door, models) as local:
        yield local.urls[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Ingresses of one server, and what is behind them."""

    urls: list[str]
    apps: list[Any]
    managers: list[LocalManager]

    @property
    def exchanges(self) -> list[Any]:
        """Of all ingresses, to the first model."""
        found = [next(r for r in app.routes if r.path == "/v1/models") for app in self.apps]
        return [next(iter(route.endpoint.__self__._models)).exchange for route in found]


@contextmanager
def local_ingresses(
    door: Door, models: list[tuple[Any, Facts]], *, count: int = 1
) -> Iterator[Local]:
    """The same with several ingresses, as Ray Serve's replicas are."""
    managers = [LocalManager(max_unfinished=facts.max_unfinished) for _, facts in models]
    handles = [(Handle(m), facts) for m, (_, facts) in zip(managers, models, strict=True)]
    apps = [build_app(door, handles) for _ in range(count)]
    options: dict[str, Any] = {"port": 0, "log_level": "error", "lifespan": "off", "ws": "none"}
    servers = [uvicorn.Server(uvicorn.Config(app, **options)) for app in apps]

    async def serve() -> None:
        for manager, (start, _) in zip(managers, models, strict=True):
            await manager.start(start)
        await asyncio.gather(*(server.serve() for server in servers))
        loop = asyncio.get_running_loop()
        for manager in managers:
            stopped = asyncio.Event()
            manager._commands.put(partial(_stop, loop, stopped))
            await stopped.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        while not all(server.started for server in servers):
            assert thread.is_alive()
            time.sleep(0.01)
        ports = [server.servers[0].sockets[0].getsockname()[1] for server in servers]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        yield Local(urls=urls, apps=apps, managers=managers)
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(5)

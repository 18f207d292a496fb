"""SIGTERM: answers that have begun come to their end, and new requests are refused."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from ray.exceptions import GetTimeoutError

from actors.manager.manager import Manager
from models.loop.token_loop import TokenLoop
from models.requests.request import Result
from pipelines.serve import drain as draining
from pipelines.serve import server as serving
from pipelines.serve.door.door import Door
from pipelines.serve.drain import drain
from pipelines.serve.learning.beside import Lessons
from pipelines.serve.learning.learner import Learner, Pupil
from pipelines.serve.learning.lesson import COURSE
from pipelines.serve.learning.rows import newest_rows
from pipelines.serve.learning.state import ROWS
from pipelines.serve.server import Running, Server
from tests.actors.conftest import make_requests
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import Handle, LoopPool, facts_of, local_ingresses
from tests.pipelines.serve.test_served import ask


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of a manager in this process return coroutines, and Serve need not be shut down."""

    def get(calls: Any, timeout: float) -> Any:
        if not isinstance(calls, list):
            return asyncio.run(calls)
        return [asyncio.run(call) for call in calls]

    monkeypatch.setattr(draining.ray, "get", get)
    monkeypatch.setattr(serving.serve, "shutdown", lambda: None)


class Hanging:
    """A manager's handle; its calls are never answered."""

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self) -> None:
        pass


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Server:
    def get(calls: Any, timeout: float | None = None) -> Any:
        assert timeout is not None, "this would wait for ever"
        raise GetTimeoutError

    monkeypatch.setattr(draining.ray, "get", get)
    return Server(url="", models=(Running(facts=cast(Any, None), manager=Hanging()),))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Held, once it was cleared: a loop makes a few more steps, and waits until it is set."""
    held, real, left = threading.Event(), TokenLoop.step, 5
    held.set()

    def step(self: Any) -> Any:
        nonlocal left
        left -= not held.is_set()
        if left < 0:
            held.wait(60)
        return real(self)

    monkeypatch.setattr(TokenLoop, "step", step)
    return held


@pytest.mark.usefixtures("without_ray")
def test_streams_end_whole_and_new_requests_are_refused(
    served_target: str, checkpoints: dict[str, str], gate: threading.Event
) -> None:
    config = replace(demo_config(served_target, checkpoints["draft"]), max_length=256)
    models: list[Any] = [(partial(LoopPool.start, config), facts_of(config))]
    same: dict[str, Any] = {"model": "demo", "prompt": "Once", "max_tokens": 200, "seed": 1, "n": 4}
    same |= {"extra_body": {"ignore_eos": True}}
    with (
        local_ingresses(Door(max_body_bytes=2**20), models) as local,
        openai.OpenAI(base_url=f"{local.urls[0]}/v1", api_key="none", max_retries=0) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        expected = [choice.text for choice in client.completions.create(**same).choices]
        gate.clear()
        stream = client.completions.create(stream=True, **same)
        pieces = [next(stream)]
        handles = [Handle(manager) for manager in local.managers]
        assert drain(handles, within_s=0) == 4
        with pytest.raises(openai.InternalServerError, match="the server stops") as refused:
            client.completions.create(**same)
        assert refused.value.status_code == 503
        assert refused.value.response.headers["retry-after"]
        assert ask(f"{local.urls[0]}/readyz")[0] == 503
        assert ask(f"{local.urls[0]}/health")[0] == 200
        drained = threads.submit(drain, handles, within_s=60)
        gate.set()
        pieces += stream
        assert drained.result() == 0
    texts = [""] * 4
    for choice in (choice for piece in pieces for choice in piece.choices):
        texts[choice.index] += choice.text
    assert texts == expected


def test_a_manager_that_hangs_does_not_keep_the_server(hanging: Server) -> None:
    hanging.look()
    assert hanging.drain(within_s=0) is None


@pytest.mark.usefixtures("without_ray")
def test_the_last_answers_are_learned_from(tmp_path: Path) -> None:
    manager = Manager(max_unfinished=1, records=True)
    request = replace(make_requests(1)[0], record=True)
    asyncio.run(manager.submit("a", [request]))
    manager._deliver([], [Result(id="r0", tokens=(1,), finish_reason="length")])
    asyncio.run(manager.take("a", 0.01))
    asyncio.run(manager.take("a", 0.01, 0))
    pupil = Pupil(target="/t", target_digest="T", drafter="/d", drafter_digest="D", depth=4)
    lessons = Lessons(Learner(tmp_path, pupil, COURSE), 0)
    models = (Running(facts=cast(Any, None), manager=Handle(manager)),)
    assert Server(url="", models=models, lessons=lessons).drain(within_s=0) == 0
    lessons.close()
    assert [row.tokens for row in newest_rows(tmp_path / ROWS, 9)] == [(1,)]

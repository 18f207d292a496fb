"""SIGTERM: answers that have begun come to their end, and new requests are refused."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import openai
import pytest

from models.errors import InvalidOption
from models.loop.token_loop import TokenLoop
from pipelines.serve import drain as draining
from pipelines.serve.application import build
from pipelines.serve.door import Door
from pipelines.serve.drain import drain
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import Handle, LoopPool, facts_of, local_ingresses
from tests.pipelines.serve.test_served import ask


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of a manager in this process return coroutines instead of references."""
    monkeypatch.setattr(draining.ray, "get", lambda calls: [asyncio.run(call) for call in calls])


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


def test_ray_serve_drains_by_its_own_rules() -> None:
    with pytest.raises(InvalidOption, match="drain_seconds"):
        build({"target": "examples/models/text-target", "host": "::1", "drain_seconds": 3.0})

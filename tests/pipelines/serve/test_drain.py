"""SIGTERM: answers that have begun come to their end, and new requests are refused."""

import asyncio
import json
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from models.errors import InvalidOption
from pipelines.serve.application import build
from pipelines.serve.door import Door
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import LoopPool, facts_of, local_ingresses
from tests.pipelines.serve.test_command import ready
from tests.pipelines.serve.test_served import ask
from tests.pipelines.test_interruption import Command
from tests.ports import free_port

BODY: dict[str, Any] = {"prompt": "Once", "max_tokens": 120, "seed": 1, "ignore_eos": True}


def test_streams_end_whole_and_new_requests_are_refused(
    served_target: str, checkpoints: dict[str, str]
) -> None:
    config = replace(demo_config(served_target, checkpoints["draft"]), max_length=256)
    models: list[Any] = [(partial(LoopPool.start, config), facts_of(config))]
    same: dict[str, Any] = {"model": "demo", "prompt": "Once", "max_tokens": 120}
    same |= {"extra_body": {"ignore_eos": True}}
    with local_ingresses(Door(max_body_bytes=2**20), models) as local:
        (url,), (manager,) = local.urls, local.managers
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            expected = [client.completions.create(seed=seed, **same) for seed in range(10)]
            streams = [client.completions.create(seed=s, stream=True, **same) for s in range(10)]
            texts = [next(stream).choices[0].text for stream in streams]
            asyncio.run(manager.close())
            with pytest.raises(openai.InternalServerError, match="the server stops") as refused:
                client.completions.create(seed=1, **same)
            assert refused.value.status_code == 503
            assert refused.value.response.headers["retry-after"]
            assert ask(f"{url}/readyz")[0] == 503
            assert ask(f"{url}/health")[0] == 200
            for number, stream in enumerate(streams):
                texts[number] += "".join(chunk.choices[0].text for chunk in stream)
        assert texts == [answer.choices[0].text for answer in expected]
        assert asyncio.run(manager.left()) == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sigterm_cuts_no_stream(tmp_path: Path) -> None:
    port = free_port()
    options = ["--target", "examples/models/text-target", "--port", str(port), "--threads", "1"]
    command = Command(tmp_path, "serve", *options)
    url = f"http://127.0.0.1:{port}"
    try:
        while not ready(url):
            assert command.process.poll() is None, command.told
            time.sleep(0.2)
        with ThreadPoolExecutor(4) as threads:
            streams = [threads.submit(streamed, url, seed) for seed in range(4)]
            while not running(url):
                time.sleep(0.02)
            code, _ = command.stop(signal.SIGTERM)
            assert [stream.result() for stream in streams] == [b"data: [DONE]"] * 4
    finally:
        command.process.kill()
    assert code == 0, command.told
    assert not command.left()


def streamed(url: str, seed: int) -> bytes:
    """The last line of a stream."""
    body = json.dumps(BODY | {"max_tokens": 500, "stream": True, "seed": seed}).encode()
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(f"{url}/v1/completions", body, headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        lines: list[bytes] = answer.read().strip().splitlines()
    return lines[-1]


def running(url: str) -> bool:
    """Whether all four streams run."""
    line = 'paceline_num_requests_running{model_name="text-target"} 4.0'
    return line in ask(f"{url}/metrics")[1]


def test_ray_serve_drains_by_its_own_rules() -> None:
    with pytest.raises(InvalidOption, match="drain_seconds"):
        build({"target": "examples/models/text-target", "host": "::1", "drain_seconds": 3.0})

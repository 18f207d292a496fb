"""The server as Ray Serve starts it from a configuration, which is how a RayService does."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from actors.tokenizer import TokenizerActor
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.requests.request import Request, Sampling
from pipelines.cli import main
from tests.ports import free_port

PROMPT, TOKENS, SEED = "Tell me of number 3: ", 12, 7


@pytest.fixture
def deployed(ray_cluster: None, served_target: str, tmp_path) -> Iterator[str]:
    """The address of a server deployed from what `paceline serve --build` wrote."""
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    from pipelines.serve.application import build

    port, file = free_port(), tmp_path / "serve.yaml"
    flags = ["--target", served_target, "--port", str(port), "--device", "cpu", "--threads", "1"]
    assert main(["serve", *flags, "--build", str(file)]) == 0
    said = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    (application,) = said.applications
    serve.start(http_options={"host": said.http_options.host, "port": said.http_options.port})
    serve.run(build(application.args), name=application.name, route_prefix=application.route_prefix)
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def completion(url: str, **body: Any) -> str:
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text: str = json.loads(answer.read())["choices"][0]["text"]
        return text


@pytest.mark.ray
def test_a_configuration_starts_the_server(deployed, served_target):
    tokenizer = TokenizerActor(served_target)
    loop = build_loop(EngineConfig(target=served_target, device="cpu"))
    (prompt,) = tokenizer.encode_batch([PROMPT])
    sampling = Sampling(max_tokens=TOKENS)
    (result,) = loop.run([Request(id="a", prompt=tuple(prompt), seed=SEED, sampling=sampling)])
    (expected,) = tokenizer.decode_batch([list(result.tokens)])
    assert completion(deployed, prompt=PROMPT, max_tokens=TOKENS, seed=SEED) == expected

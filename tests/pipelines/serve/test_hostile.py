"""Bodies that nobody should send: each is answered or refused, and none breaks the server.

In `make soak`: more than 10,000 of them.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis

from models.engine_config import EngineConfig
from pipelines.serve.bodies.fields import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    DrafterBody,
    ImageBody,
    TokenizeBody,
)
from pipelines.serve.bodies.messages import CountBody, MessagesBody
from pipelines.serve.bodies.responses import ResponsesBody
from tests.pipelines.generate.image_jobs import save_raster
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.sizes import sized

IMAGES = "/v1/images/generations"
BODIES: dict[str, Any] = {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
    "/v1/responses": ResponsesBody,
    "/v1/messages": MessagesBody,
    "/v1/messages/count_tokens": CountBody,
    "/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
    "/drafter": DrafterBody,
    IMAGES: ImageBody,
}
SHORT = 40  # tokens of a request, so that no answer takes long
DEEP = 10_000
HOSTILE: dict[str, bytes] = {
    "nan": b'{"prompt": "a", "max_tokens": 2, "temperature": NaN}',
    "infinity": b'{"prompt": "a", "max_tokens": 2, "temperature": 1e999}',
    "nan as a number": b'{"prompt": "a", "max_tokens": NaN}',
    "surrogate": b'{"prompt": "\\ud800", "max_tokens": 2}',
    "surrogate in a message": b'{"messages": [{"role": "user", "content": "\\udfff"}]}',
    "nul": b'{"prompt": "a\\u0000b", "max_tokens": 2}',
    "digits": b'{"prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}",
    "depth": b'{"prompt": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "depth of a schema": b'{"prompt": "a", "max_tokens": 2, "structured_outputs": {"json": '
    + b'{"a":' * 500
    + b"{}"
    + b"}" * 500
    + b"}}",
    "bytes": b'{"prompt": "\xff\xfe"}',
    "mark": b'\xef\xbb\xbf{"prompt": "a", "max_tokens": 2}',
    "twice": b'{"prompt": "a", "prompt": "b", "max_tokens": 2}',
    "no object": b"[1]",
    "nothing": b"",
    "seed": b'{"prompt": "a", "max_tokens": 2, "seed": -9223372036854775808}',
    "regex": b'{"prompt": "a", "max_tokens": 2, "structured_outputs": {"regex": "(a+)+$"}}',
    "huge regex": b'{"prompt": "a", "max_tokens": 2, "structured_outputs": '
    b'{"regex": "((a{1,99}){1,99}){1,99}"}}',
    "circle": b'{"prompt": "a", "max_tokens": 2, "structured_outputs": {"json": {"$ref": "#"}}}',
    "no end": b'{"prompt": "a", "max_tokens": 2, "structured_outputs": '
    b'{"grammar": "start: start"}}',
    "empty choice": b'{"prompt": "a", "max_tokens": 2, "structured_outputs": {"choice": [""]}}',
    "tokens": b'{"prompt": [2147483647], "max_tokens": 2}',
    "bias": b'{"prompt": "a", "max_tokens": 2, "logit_bias": {"\\u0661": 1}}',
    "prompts": json.dumps({"prompt": [[1]] * 20_000, "n": 16}).encode(),
    "stops": b'{"prompt": "a", "max_tokens": 2, "stop": ["\\u0000", "a"]}',
}
HOSTILE_IMAGES: dict[str, bytes] = {
    "digits": b'{"prompt": ' + b"9" * 4000 + b"}",
    "digits as a text": b'{"prompt": "' + b"9" * 5000 + b'"}',
    "other digits": b'{"prompt": "\\u0663"}',
    "below 0": b'{"prompt": -1}',
    "fraction": b'{"prompt": 1.5}',
    "true": b'{"prompt": true}',
    "nul": b'{"prompt": "3\\u0000"}',
    "space": b'{"prompt": " 3\\n"}',
    "list": b'{"prompt": [3]}',
    "seed": b'{"prompt": 3, "seed": -9223372036854775808, "n": 10}',
    "steps": b'{"prompt": 3, "steps": 2147483647}',
    "nan": b'{"prompt": 3, "temperature": NaN}',
    "top_p": b'{"prompt": 3, "top_p": 1e-320}',
    "top_k": b'{"prompt": 3, "top_k": 2147483647}',
}
HOSTILE_DRAFTERS = {
    "nothing": "",
    "nul": "examples\0models",
    "here": ".",
    "root": "/",
    "file": "README.md",
    "device": "/dev/zero",
    "long": "a" * 5000,
    "many folders": "a/" * 5000,
    "user": "~nobody-of-this-name/a",
    "address": "http://127.0.0.1:9/a",
    "bucket": "s3://",
    "image's": "examples/models/digits-raster-draft",
    "none": "none",
}
MESSAGE = {"role": "user", "content": "a"}
DEEP_SCHEMA: dict[str, Any] = {}
for _ in range(150):
    DEEP_SCHEMA = {"properties": {"a": DEEP_SCHEMA}}
PARAMETERS: dict[str, Any] = {
    "circle": {"$ref": "#"},
    "circle of definitions": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "no type": {"type": "nothing"},
    "depth": DEEP_SCHEMA,
    "nothing is valid": {"enum": []},
    "tag": {"const": "</tool_call><tool_call>"},
    "regex": {"type": "string", "pattern": "(?=a)"},
    "bytes": {"type": "string", "enum": ["\u0000", "\ufffd"]},
}
CALLS: dict[str, Any] = {  # in a conversation: arguments, as a client sends them back
    "object": {"a": 1},
    "no JSON": "{",
    "depth": "[" * DEEP,
    "number": 7,
    "nothing": None,
}


@pytest.fixture(scope="module")
def short_url(tagged: str) -> Iterator[str]:
    """A server that allows short requests only."""
    from dataclasses import replace

    config = replace(demo_config(tagged, "lookup"), max_length=SHORT)
    with local_server(config) as url:
        yield url


@pytest.fixture(scope="module")
def image_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of images of 16 tokens."""
    target = save_raster(tmp_path_factory.mktemp("hostile") / "raster")
    config = EngineConfig(target=target, batch_size=4, device="cpu", threads=1)
    with local_server(config, kind="images") as url:
        yield url


def status(url: str, path: str, body: bytes) -> tuple[int, Any]:
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(f"{url}{path}", body, headers, method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_answered_or_refused(short_url: str, name: str) -> None:
    path = "/v1/chat/completions" if b"messages" in HOSTILE[name] else "/v1/completions"
    found, told = status(short_url, path, HOSTILE[name])
    assert found in (200, 400), told
    if found == 400:
        assert told["error"]["message"]
    good = json.dumps({"prompt": "Once", "max_tokens": 2, "seed": 1}).encode()
    assert status(short_url, "/v1/completions", good)[0] == 200


@pytest.mark.parametrize("name", HOSTILE_IMAGES)
def test_a_hostile_body_of_an_image_is_answered_or_refused(image_url: str, name: str) -> None:
    found, told = status(image_url, IMAGES, HOSTILE_IMAGES[name])
    assert found in (200, 400), told
    assert status(image_url, IMAGES, b'{"prompt": 3, "seed": 1}')[0] == 200


@pytest.mark.parametrize("name", HOSTILE_DRAFTERS)
def test_a_hostile_drafter_is_refused(short_url: str, name: str) -> None:
    body = json.dumps({"drafter": HOSTILE_DRAFTERS[name]}).encode()
    found, told = status(short_url, "/drafter", body)
    assert found == 400, told
    assert told["error"]["param"] == "drafter"
    good = json.dumps({"prompt": "Once", "max_tokens": 2, "seed": 1}).encode()
    assert status(short_url, "/v1/completions", good)[0] == 200


def with_tools(parameters: Any) -> dict[str, dict[str, Any]]:
    """Bodies whose model may call a tool, by route."""
    function = {"name": "a", "parameters": parameters}
    return {
        "/v1/chat/completions": {
            "messages": [MESSAGE],
            "tools": [{"type": "function", "function": function}],
            "max_tokens": 4,
        },
        "/v1/responses": {
            "input": "a",
            "tools": [{"type": "function", **function}],
            "max_output_tokens": 4,
        },
        "/v1/messages": {
            "messages": [MESSAGE],
            "tools": [{"name": "a", "input_schema": parameters}],
            "max_tokens": 4,
        },
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_hostile_tool_is_answered_or_refused(short_url: str, name: str) -> None:
    """The model may call it, or answer with a text."""
    for path, body in with_tools(PARAMETERS[name]).items():
        found, told = status(short_url, path, json.dumps(body).encode())
        assert found in (200, 400), (path, told)


@pytest.mark.parametrize("name", CALLS)
def test_a_hostile_call_in_a_conversation_is_read_or_refused(short_url: str, name: str) -> None:
    given = CALLS[name]
    call = {"id": "1", "type": "function", "function": {"name": "a", "arguments": given}}
    item = {"type": "function_call", "call_id": "1", "name": "a", "arguments": given}
    use = {"type": "tool_use", "id": "1", "name": "a", "input": given}
    made: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {
            "messages": [{"role": "assistant", "tool_calls": [call]}, MESSAGE],
            "max_tokens": 4,
        },
        "/v1/responses": {"input": [item, MESSAGE], "max_output_tokens": 4},
        "/v1/messages": {
            "messages": [{"role": "assistant", "content": [use]}, MESSAGE],
            "max_tokens": 4,
        },
    }
    for path, body in made.items():
        found, told = status(short_url, path, json.dumps(body).encode())
        assert found in (200, 400), (path, told)


def description() -> dict[str, Any]:
    """The routes with bodies in OpenAPI's form."""
    found: dict[str, Any] = {}
    paths = {}
    for path, kind in BODIES.items():
        shape = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= shape.pop("$defs", {})
        body = {"required": True, "content": {"application/json": {"schema": shape}}}
        answers = {"default": {"description": "An answer or an error."}}
        paths[path] = {"post": {"requestBody": body, "responses": answers}}
    info = {"title": "Paceline", "version": "1"}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": found}}


schema = schemathesis.openapi.from_dict(description())


@pytest.mark.slow
@schema.parametrize()
@hypothesis.settings(
    max_examples=sized(12, 1450),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
)
def test_no_body_of_any_route_is_an_error_of_the_server(
    case: Any, short_url: str, image_url: str
) -> None:
    url = image_url if case.path == IMAGES else short_url
    answer = case.call(base_url=url, timeout=60)
    assert answer.status_code < 500, answer.text
    assert answer.status_code != 422

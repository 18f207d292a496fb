"""The routes of an ingress without a cluster: what is refused before anything is asked of it."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.serve.app import build_app
from pipelines.serve.door.door import Door
from pipelines.serve.generation.facts import Facts

MODELS = Path(__file__).parents[3] / "examples" / "models"
OPEN = {"/", "/health", "/healthz", "/readyz"}  # the page asks for a key itself
JSON = {"content-type": "application/json"}


def app(*, keys: tuple[str, ...] = (), kind: str = "text") -> Any:
    facts = Facts(
        name="demo",
        checkpoint=str(MODELS / {"text": "text-target", "images": "digits-raster"}[kind]),
        kind=kind,
        fingerprint="fp",
        others="",
        exactness="identical",
        created=1,
        max_unfinished=10,
    )
    hashes = tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys)
    return build_app(Door(max_body_bytes=1000, key_hashes=hashes), [(None, facts)])


def ask(made: Any, method: str, path: str, headers: dict[str, str], body: bytes = b"{}") -> Any:
    """Status and JSON of an answer."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(made(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent[1:]))


@pytest.fixture(scope="module")
def locked() -> Any:
    return app(keys=("secret",))


def guarded(made: Any) -> list[tuple[str, str]]:
    found = [(m, route.path) for route in made.routes for m in route.methods]
    return [(method, path) for method, path in found if path not in OPEN]


def test_every_route_but_health_needs_the_key(locked: Any) -> None:
    routes = guarded(locked)
    assert len(routes) >= 6
    for method, path in routes:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            status, told = ask(locked, method, path, JSON | {"host": "localhost"} | headers)
            assert (path, status) == (path, 401)
            kind = "type" if path.startswith("/v1/messages") else "code"
            assert told["error"][kind] in ("invalid_api_key", "authentication_error")
    assert ask(locked, "GET", "/health", {})[0] == 200


def test_the_right_key_reaches_the_body(locked: Any) -> None:
    headers = JSON | {"authorization": "Bearer secret", "host": "anywhere"}
    status, told = ask(locked, "POST", "/v1/completions", headers)
    assert (status, told["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"host": "evil.example"}, b"{}", 403),
        ({"host": "localhost", "origin": "https://evil.example"}, b"{}", 403),
        ({"host": "localhost", "content-type": "text/plain"}, b"{}", 415),
        ({"host": "localhost", "content-length": "1001"}, b"{}", 413),
        ({"host": "localhost"}, b" " * 1001, 413),
        ({"host": "localhost"}, b"{", 400),
    ],
)
def test_what_may_not_come_in_is_refused(headers, body, expected) -> None:
    status, told = ask(app(), "POST", "/v1/completions", JSON | headers, body)
    assert status == expected
    assert told["error"]["message"]


def test_unknown_routes_and_models_are_404_in_openai_s_form() -> None:
    local = {"host": "localhost"}
    assert ask(app(), "GET", "/v1/embeddings", local)[1]["error"]["code"] == "not_found"
    status, told = ask(app(), "GET", "/v1/models/gpt", local)
    assert (status, told["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("kind", "path", "told"),
    [
        ("text", "/v1/images/generations", "makes images; 'demo' makes texts"),
        ("images", "/v1/completions", "makes texts; 'demo' makes images"),
        ("images", "/v1/messages", "makes texts; 'demo' makes images"),
        ("images", "/drafter", "makes texts; 'demo' makes images"),
    ],
)
def test_a_route_without_a_model_says_what_the_server_has(kind, path, told) -> None:
    status, found = ask(app(kind=kind), "POST", path, JSON | {"host": "localhost"})
    assert status == 404
    assert found["error"]["message"] == f"{path}: no model of this server {told}"
    locked = app(kind=kind, keys=("secret",))
    status, found = ask(locked, "POST", path, JSON | {"host": "localhost"})
    assert status == 401
    assert "demo" not in json.dumps(found)


def test_a_chat_needs_a_template() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
    status, told = ask(app(), "POST", "/v1/chat/completions", JSON | {"host": "localhost"}, body)
    assert (status, told["error"]["code"]) == (400, "no_chat_template")

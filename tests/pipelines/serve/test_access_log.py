"""One line in the log for each HTTP request."""

import asyncio
import logging
import time
from typing import Any

import openai
import pytest

from pipelines.serve.door import access_log


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, access_log.__name__)
    return caplog


def facts(lines: pytest.LogCaptureFixture) -> dict[str, object]:
    """Of the one line, which comes after the answer's last byte."""
    found = list[logging.LogRecord]()
    while not found:
        time.sleep(0.01)
        found = [each for each in lines.records if each.name == access_log.__name__]
    (line,) = found
    names = ("message", "status", "request", "client")
    return {name: line.__dict__.get(name) for name in names}


def test_an_answer_s_line_has_its_id(demo: openai.OpenAI, lines: pytest.LogCaptureFixture) -> None:
    made = demo.completions.with_raw_response.create(model="demo", prompt="A", max_tokens=2)
    name = made.parse().id
    assert made.headers["x-request-id"] == name
    assert facts(lines) == {
        "message": "POST /v1/completions",
        "status": 200,
        "request": name,
        "client": "-",
    }


def test_a_stream_s_line_comes_at_its_end(
    demo: openai.OpenAI, lines: pytest.LogCaptureFixture
) -> None:
    with demo.completions.create(model="demo", prompt="A", max_tokens=4, stream=True) as stream:
        next(stream)
        assert not [each for each in lines.records if each.name == access_log.__name__]
        list(stream)
    assert facts(lines)["message"] == "POST /v1/completions"


def test_what_is_refused_has_a_line(demo: openai.OpenAI, lines: pytest.LogCaptureFixture) -> None:
    with pytest.raises(openai.BadRequestError):
        demo.completions.create(model="demo", prompt="A", extra_body={"temprature": 1})
    found = facts(lines)
    assert (found["status"], found["request"]) == (400, None)


async def run(app: Any) -> list[str]:
    """What an application sends around which the log is."""
    sent = list[str]()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/v1/models"}
    await access_log.AccessLog(app)(scope, receive, send)
    return sent


def test_an_error_of_the_server_has_its_status(lines: pytest.LogCaptureFixture) -> None:
    async def app(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run(app))
    assert (facts(lines)["status"], facts(lines)["message"]) == (500, "GET /v1/models")


def test_a_client_that_leaves_is_told(lines: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run(app))
    assert str(facts(lines)["message"]).endswith("which its client did not wait for")

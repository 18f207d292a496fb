"""Streams that are cut anywhere go on with the identical rest, from the id of the last event."""

import json
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest

from models.exactness import DISTRIBUTION, ROUNDED
from pipelines.serve.answers.choice import Delta
from pipelines.serve.answers.progress import beginning, parse_progress
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.decided import digest_of
from pipelines.serve.bodies.fields import ChatBody
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.test_constrained import FORMAT, MESSAGES, TOOLS

DIGEST = "0b" * 8
TWO = ChatBody(messages=MESSAGES, n=2)
BODIES: dict[str, dict[str, Any]] = {
    "text": {"max_tokens": 40, "n": 2},
    "logprobs": {"max_tokens": 20, "logprobs": True, "top_logprobs": 1},
    "stop": {"max_tokens": 60, "stop": ["the ", "e a"], "frequency_penalty": 0.3},
    "schema": {"max_tokens": 60, "response_format": FORMAT},
    "tools": {"max_tokens": 60, "tools": TOOLS, "tool_choice": "required"},
}


def events(url: str, body: dict[str, Any], last: str | None = None) -> list[tuple[str, Any]]:
    """Ids and chunks; the last chunk is the text [DONE]."""
    headers = {"content-type": "application/json"} | ({"last-event-id": last} if last else {})
    path = f"{url}/v1/chat/completions"
    asked = urllib.request.Request(path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        text = answer.read().decode()
    found = []
    for part in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.split("\n"))
        data = fields["data"]
        found.append((fields.get("id", ""), json.loads(data) if data != "[DONE]" else data))
    return found


def told(found: list[tuple[str, Any]]) -> dict[int, list[Any]]:
    """What each choice is told in all: text, arguments, log-probabilities, and its end."""
    out: dict[int, list[Any]] = {}
    for _, chunk in found:
        for choice in chunk["choices"] if isinstance(chunk, dict) else ():
            whole = out.setdefault(choice["index"], ["", "", [], None])
            whole[0] += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", ()):
                whole[1] += call["function"].get("name", "") + call["function"]["arguments"]
            whole[2] += (choice["logprobs"] or {}).get("content", [])
            whole[3] = choice["finish_reason"] or whole[3]
    return out


@pytest.mark.parametrize("name", BODIES)
def test_the_rest_is_the_same_wherever_it_was_cut(demo_url: str, name: str) -> None:
    body = {"model": "demo", "messages": MESSAGES, "seed": 5, "stream": True} | BODIES[name]
    whole = events(demo_url, body)
    marked = [i for i, (last, _) in enumerate(whole) if last]
    for at in {marked[0], marked[len(marked) // 2], marked[-2], marked[-1]}:
        rest = events(demo_url, body, whole[at][0])
        assert rest[-1][1] == "[DONE]"
        assert told(whole[: at + 1] + rest) == told(whole)


def test_the_seed_that_was_drawn_is_in_the_id(demo_url: str) -> None:
    body = {"model": "demo", "messages": MESSAGES, "stream": True, "max_tokens": 12}
    whole = events(demo_url, body)
    at = next(i for i, (last, _) in enumerate(whole) if last)
    assert told(whole[: at + 1] + events(demo_url, body, whole[at][0])) == told(whole)


DECIDE: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Another"}],
    "temperature": 0.5,
    "stop": "e",
    "logit_bias": {"7": -100},
    "max_tokens": 11,
    "logprobs": True,
    "response_format": FORMAT,
}
LABELS: dict[str, Any] = {
    "user": "me",
    "metadata": {"a": "b"},
    "stream_options": {"include_usage": True},
    "priority": 3,
    "cache_salt": "a",
    "model": None,
}


def test_the_id_of_another_body_is_refused(demo_url: str) -> None:
    """It would be given the tail of another answer. Labels may differ."""
    body = {"model": "demo", "messages": MESSAGES, "stream": True, "max_tokens": 12}
    whole = events(demo_url, body)
    at = next(i for i, (last, _) in enumerate(whole) if last)
    for name, value in DECIDE.items():
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            events(demo_url, body | {name: value}, whole[at][0])
        error = json.load(refused.value)["error"]
        assert error["param"] == "Last-Event-ID", name
        assert "of another body" in error["message"]
    rest = events(demo_url, body | LABELS, whole[at][0])
    assert told(whole[: at + 1] + rest) == told(whole)


def test_openai_s_client_reads_streams_with_ids(demo: openai.OpenAI) -> None:
    body: Any = {"model": "demo", "messages": MESSAGES, "seed": 5, "max_tokens": 12}
    texts = [
        chunk.choices[0].delta.content or ""
        for chunk in demo.chat.completions.create(stream=True, **body)
    ]
    whole = demo.chat.completions.create(**body)
    assert "".join(texts) == whole.choices[0].message.content


def test_a_delta_is_cut_where_the_client_was() -> None:
    first = beginning("fp", 7, DIGEST, 2)
    assert first.begins
    assert first.note(Delta(1, text="Hello")) == f"fp.7.{DIGEST}.0-0.5-0"
    last = parse_progress(f"fp.7.{DIGEST}.0-0.5-0")
    assert last.digest == DIGEST
    assert (last.seed, last.count, last.begins) == (7, 2, False)
    old, new = last.split(Delta(1, text="Hel"))
    assert (old.text, new) == ("Hel", None)
    old, new = last.split(Delta(1, text="lo you", offset=3, finish_reason="stop"))
    assert (old.text, new.text, new.offset, new.finish_reason) == ("lo", " you", 5, "stop")
    assert last.note(new) == f"fp.7.{DIGEST}.0-0.9-0e"
    done = parse_progress(f"fp.7.{DIGEST}.0-0.9-0e")
    assert done.split(Delta(1, text="Hello you", finish_reason="stop"))[1] is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fp.7",
        "fp.7.1-2",
        f"fp.7.{DIGEST}",
        f"fp.x.{DIGEST}.1-2",
        f"fp.7.{DIGEST}.1",
        f"fp.7.{DIGEST}.1-2-3",
        f"fp.7.{DIGEST}." + "1-1." * 500,
        f"fp.-1.{DIGEST}.0-0",
        f"7.{DIGEST}.1-2",
        f"fp.7.{DIGEST[1:]}.1-2",
    ],
)
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(ApiError, match="not an id"):
        parse_progress(text)


@pytest.mark.parametrize(
    ("body", "last", "why"),
    [
        ({"stream": True, "seed": 1}, f"fp.2.{DIGEST}.1-0", "seed"),
        ({"stream": True, "n": 2}, f"fp.2m9.{digest_of(TWO)}.1-0", "choices"),
        ({"stream": True}, f"fp.2m9.{DIGEST}.1-0", "of another body"),
        ({"stream": True, "seed": 2}, f"other.2.{DIGEST}.1-0", "of the server other"),
        ({}, f"fp.2.{DIGEST}.1-0", "needs stream"),
        ({"stream": True, "paceline": {"trace": True}}, f"fp.2.{DIGEST}.1-0", "without a trace"),
    ],
)
def test_ids_of_other_bodies_are_refused(
    demo: openai.OpenAI, body: Any, last: str, why: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=why):
        demo.chat.completions.create(
            model="demo", messages=MESSAGES, extra_body=body, extra_headers={"last-event-id": last}
        )


@pytest.mark.parametrize(
    "changed",
    [
        {"exactness": ROUNDED},
        {"told": {"exactness": ROUNDED, "arithmetic": "torch", "device": "cuda (H200)"}},
        {"told": {"exactness": DISTRIBUTION}},
    ],
)
def test_no_stream_goes_on_where_an_answer_may_be_another_one(
    demo_target: str, changed: dict[str, Any]
) -> None:
    body = {"model": "demo", "messages": MESSAGES, "stream": True, "max_tokens": 4, "seed": 1}
    with local_server(demo_config(demo_target, "none"), **changed) as url:
        found = events(url, body)
        assert all(not last for last, _ in found)
        assert found[0][1]["system_fingerprint"] != "fp"
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            events(url, body, f"fp.1.{DIGEST}.1-0")
        assert "whose answers are 'identical': these are" in refused.value.read().decode()

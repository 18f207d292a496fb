"""Streams of responses and messages go on with the identical rest, wherever they were cut."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from pipelines.serve.answers.choice import AnswerChoice
from pipelines.serve.answers.forms import Chats
from pipelines.serve.answers.heading import Heading
from pipelines.serve.answers.messages import MessageWriter
from pipelines.serve.answers.parts import Parts
from pipelines.serve.answers.place import first_place, parse_place
from pipelines.serve.answers.responses import ResponseWriter
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.responses import ResponsesBody
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.test_constrained import MESSAGES
from tests.pipelines.serve.test_other_forms import FLAT, TEXT, THEIRS, claude
from tests.pipelines.serve.test_parts import GIVEN, deltas, reader
from tests.pipelines.serve.test_progress import DIGEST

__all__ = ["claude"]  # a fixture

HEADING = Heading(
    id="chatcmpl-" + "0a" * 16, created=5, model="m", fingerprint="fp", seed=7, prompt_tokens=3
)
OTHER = Heading(
    id="chatcmpl-" + "0b" * 16, created=9, model="m", fingerprint="fp", seed=7, prompt_tokens=3
)
CUT = ("free and cut", "free and empty", "plain", "required", "two calls")
Sent = tuple[str | None, dict[str, Any]]  # an event's id and what it says


def read(raw: bytes) -> list[Sent]:
    """Events with names."""
    found = []
    for part in raw.decode().strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.split("\n"))
        data = json.loads(fields["data"])
        assert fields["event"] == data["type"]
        found.append((fields.get("id"), data))
    return found


def stream(form: str, name: str, step: int, last: str | None = None) -> Iterator[bytes]:
    """A text in steps of so many characters, after what a client has seen."""
    kind, text = GIVEN[name]
    heading = HEADING if last is None else OTHER
    place = first_place(heading, DIGEST, named=True) if last is None else parse_place(last)
    parts, chats = Parts(reader(kind)), Chats(chr, True)
    body = ResponsesBody(input="a", top_logprobs=0)
    writer = (
        MessageWriter(heading, parts, place)
        if form == "messages"
        else ResponseWriter(heading, body, chats, parts, place)
    )
    choice = AnswerChoice(0)
    choice.whole.finish_reason = "stop"
    yield from writer.opening([choice])
    for delta in deltas(text, step):
        yield from writer.news(delta)
    yield from writer.closing([choice])


def told(found: list[Sent]) -> tuple[list[Any], list[Any]]:
    """What a client has in the end: events that come once, and what the others add up to."""
    once, added = [], {}
    for _, event in found:
        kind = event["type"]
        if not kind.endswith("delta") or kind == "message_delta":
            event = {k: v for k, v in event.items() if k not in ("sequence_number", "usage")}
            for name in ("completed_at", "usage", "paceline", "metrics"):  # times, and how it came
                event.get("response", event).pop(name, None)
            once.append(event)
            continue
        more = event["delta"]
        if isinstance(more, dict):
            more = more.get("text", more.get("partial_json"))
        whole = added.setdefault(event.get("output_index", event.get("index")), ["", []])
        whole[0] += more
        whole[1] += event.get("logprobs", [])
    return once, sorted(added.items())


@pytest.mark.parametrize("form", ["responses", "messages"])
@pytest.mark.parametrize("name", CUT)
def test_any_cut_of_any_stream_can_go_on(form: str, name: str) -> None:
    """In other steps than those before the cut."""
    whole = read(b"".join(stream(form, name, 4)))
    for at, (last, _) in enumerate(whole):
        assert last is not None
        rest = read(b"".join(stream(form, name, 7, last))) if at + 1 < len(whole) else []
        both = whole[: at + 1] + rest
        assert told(both) == told(whole), at
        if form == "responses":
            assert [event["sequence_number"] for _, event in both] == list(range(len(both)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fp.7",
        "fp.7.12-3",
        f"fp.7.{DIGEST}.5." + "0a" * 16,
        f"fp.7.{DIGEST}.5." + "0g" * 16 + ".1.1.1.1",
        "fp.7.5." + "0a" * 16 + ".1.1.1.1",
    ],
)
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(ApiError, match="not an id of this route"):
        parse_place(text)


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "response": (
        "/v1/responses",
        {"input": TEXT, "max_output_tokens": 24, "top_logprobs": 1, "temperature": 0.9},
    ),
    "response's call": (
        "/v1/responses",
        {"input": TEXT, "max_output_tokens": 60, "tools": FLAT, "tool_choice": "required"},
    ),
    "message": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 24}),
    "message's call": (
        "/v1/messages",
        {"messages": MESSAGES, "max_tokens": 60, "tools": THEIRS, "tool_choice": {"type": "any"}},
    ),
}


def events(url: str, name: str, last: str | None = None, **more: Any) -> list[Sent]:
    path, body = BODIES[name]
    headers = {"content-type": "application/json"} | ({"last-event-id": last} if last else {})
    data = json.dumps(body | {"stream": True} | more).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data, headers)) as answer:
        return read(answer.read())


@pytest.mark.parametrize("name", BODIES)
def test_the_rest_comes_from_a_server_with_another_drafter(
    demo_url: str, plain_url: str, name: str
) -> None:
    whole = events(demo_url, name)
    for at in (len(whole) // 2, len(whole) - 2):
        rest = events(plain_url, name, whole[at][0])
        assert told(whole[: at + 1] + rest) == told(whole)


@pytest.mark.parametrize("name", BODIES)
def test_the_id_of_another_body_is_refused(demo_url: str, name: str) -> None:
    whole = events(demo_url, name)
    for more in ({"temperature": 0.4}, {"top_k": 3}):
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            events(demo_url, name, whole[-2][0], **more)
        assert "Last-Event-ID is of another body" in json.load(refused.value)["error"]["message"]


@pytest.fixture(scope="module")
def plain_url(demo_target: str) -> Iterator[str]:
    with local_server(demo_config(demo_target, "none")) as url:
        yield url


def test_what_cannot_go_on_is_refused_in_each_route_s_form(
    demo: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    last = {"last-event-id": f"fp.2.{DIGEST}.5.{'0a' * 16}.1.1.1.0"}
    same: Any = {"model": "demo", "input": TEXT, "extra_headers": last}
    with pytest.raises(openai.BadRequestError, match="needs stream") as refused:
        demo.responses.create(**same)
    assert refused.value.param == "Last-Event-ID"
    with pytest.raises(openai.BadRequestError, match="of seed 2"):
        demo.responses.create(**same, stream=True, extra_body={"seed": 3})
    with pytest.raises(openai.BadRequestError, match="Last-Event-ID") as refused:
        demo.responses.create(model="demo", input=TEXT, extra_body={"starting_after": 3})
    assert refused.value.param == "starting_after"
    other = {"last-event-id": f"other.2.{DIGEST}.5.{'0a' * 16}.1.1.1.0"}
    body: Any = {"model": "demo", "messages": MESSAGES, "max_tokens": 3, "stream": True}
    with pytest.raises(anthropic.BadRequestError, match="of the server other"):
        claude.messages.create(**body, extra_headers=other)

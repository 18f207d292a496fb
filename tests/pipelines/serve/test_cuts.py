"""Connections that are cut at any byte go on at another ingress, which has stored nothing.

In `make soak`: 1,000 cuts.
"""

import json
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipelines.serve.door.door import Door
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import LoopPool, facts_of, local_ingresses
from tests.pipelines.serve.sizes import sized
from tests.pipelines.serve.soaking import CHAT, KINDS, WEATHER

CUTS = sized(16, 1000)
THREADS = 4
FLAT: dict[str, Any] = {"type": "function", **WEATHER["function"]}
THEIRS: dict[str, Any] = {"name": "weather", "input_schema": WEATHER["function"]["parameters"]}
INPUT = CHAT["messages"]
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        kind: ("/v1/chat/completions" if "messages" in body else "/v1/completions", body)
        for kind, body in KINDS.items()
    },
    "response": (
        "/v1/responses",
        {"input": INPUT, "max_output_tokens": 48, "top_logprobs": 1, "frequency_penalty": 0.5},
    ),
    "response's call": (
        "/v1/responses",
        {"input": INPUT, "max_output_tokens": 120, "tools": [FLAT], "tool_choice": "required"},
    ),
    "message": ("/v1/messages", {"messages": INPUT, "max_tokens": 48, "stop_sequences": ["qu"]}),
    "message's call": (
        "/v1/messages",
        {
            "messages": INPUT,
            "max_tokens": 120,
            "tools": [THEIRS],
            "tool_choice": {"type": "any"},
        },
    ),
}
Event = tuple[str, Any]  # an id, empty if there is none, and what it says
LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What came of one connection: the stream's text, and whether it was cut before its end."""

    num_bytes: int  # head and framing of chunks included
    text: bytes
    is_cut: bool


@pytest.fixture(scope="module")
def urls(served_target: str, checkpoints: dict[str, str]) -> Iterator[list[str]]:
    """Two ingresses of one server."""
    from dataclasses import replace

    config = replace(demo_config(served_target, checkpoints["draft"]), max_length=256)
    models = [(partial(LoopPool.start, config), facts_of(config))]
    with local_ingresses(Door(max_body_bytes=2**20), models, count=2) as local:
        yield local.urls


def connected(url: str, form: str, seed: int, last: str | None) -> socket.socket:
    """A stream that was asked for."""
    path, body = FORMS[form]
    data = json.dumps(body | {"seed": seed, "stream": True}).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "connection: close",
        "host: localhost",
        "content-type: application/json",
    ]
    lines += [f"content-length: {len(data)}", *([f"last-event-id: {last}"] if last else [])]
    made = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60)
    made.sendall("\r\n".join([*lines, "", ""]).encode() + data)
    return made


def received(url: str, form: str, seed: int, last: str | None, most: int | None) -> Received:
    """A stream that is cut after `most` bytes, head and framing included."""
    got = b""
    with connected(url, form, seed, last) as made:
        while most is None or len(got) < most:
            more = made.recv(4096 if most is None else min(4096, most - len(got)))
            if not more:
                break
            got += more
    head, text = parted(got)
    assert most is not None or head.split()[1] == b"200", got[:500]
    return Received(num_bytes=len(got), text=text, is_cut=not got.endswith(LAST_CHUNK))


def parted(got: bytes) -> tuple[bytes, bytes]:
    """Head and text of an answer that may have been cut: its chunks joined."""
    head, _, rest = got.partition(b"\r\n\r\n")
    text = b""
    while b"chunked" in head.lower() and b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        text, rest = text + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return head, text


def events(raw: bytes) -> list[Event]:
    """Those that came whole, as a client reads them."""
    found: list[Event] = []
    for part in raw.decode(errors="ignore").split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in part.split("\n"))
        data = fields["data"]
        found.append((fields.get("id", ""), data if data == "[DONE]" else json.loads(data)))
    return found


def told(found: list[Event]) -> dict[Any, list[Any]]:
    """What was said in all: text and log-probabilities by choice or part, and how it ended."""
    out: dict[Any, list[Any]] = {}
    for _, said in found:
        if said == "[DONE]":
            out["end"] = [said]
        elif "choices" in said:
            for choice in said["choices"]:
                _add_choice(out.setdefault(choice["index"], ["", [], None]), choice)
        elif "delta" in said and said["type"] != "message_delta":
            _add_delta(out.setdefault(said.get("output_index", said.get("index")), ["", []]), said)
        else:
            out.setdefault("once", []).append(said["type"])
    return out


def _add_choice(whole: list[Any], choice: Any) -> None:
    delta = choice.get("delta", choice)
    whole[0] += delta.get("text") or delta.get("content") or ""
    for call in delta.get("tool_calls", ()):
        whole[0] += call["function"].get("name", "") + call["function"]["arguments"]
    logprobs = choice["logprobs"] or {}
    whole[1] += logprobs.get("content") or logprobs.get("token_logprobs") or []
    whole[2] = choice["finish_reason"] or whole[2]


def _add_delta(whole: list[Any], said: Any) -> None:
    delta = said["delta"]
    if isinstance(delta, dict):
        delta = delta.get("text", delta.get("partial_json"))
    whole[0] += delta
    whole[1] += said.get("logprobs", [])


def cut_and_continued(
    urls: list[str], whole: dict[tuple[str, int], Received], number: int
) -> tuple[int, list[Event]]:
    """An answer in pieces, each from another ingress than the one before; cuts, and all events."""
    chance = random.Random(number)
    form, seed = chance.choice(list(whole))
    found: list[Event] = []
    last, cuts = None, 0
    while True:
        url = urls[(number + cuts) % len(urls)]
        is_short = cuts == 0 or chance.random() < 0.3
        most = chance.randrange(whole[form, seed].num_bytes) if is_short else None
        part = received(url, form, seed, last, most)
        more = events(part.text)
        found += more
        last = next((each for each, _ in reversed(more) if each), last)
        if not part.is_cut:
            return cuts, found
        cuts += 1
        if last is None:
            found = []  # nothing with an id has come: it begins anew


def test_what_is_cut_anywhere_goes_on_anywhere(urls: list[str]) -> None:
    asks = [(form, seed) for form in FORMS for seed in (1, 2)]
    whole = {ask: received(urls[0], *ask, None, None) for ask in asks[: sized(14, len(asks))]}
    assert not any(each.is_cut for each in whole.values())
    expected = {ask: told(events(each.text)) for ask, each in whole.items()}
    assert all(each for each in expected.values())
    done = 0
    with ThreadPoolExecutor(THREADS) as pool:
        numbers = range(CUTS)
        for number, (cuts, found) in zip(
            numbers, pool.map(partial(cut_and_continued, urls, whole), numbers), strict=True
        ):
            ask = random.Random(number).choice(list(whole))
            assert told(found) == expected[ask], (number, ask)
            done += cuts
    assert done >= CUTS / 2  # some end before: how many tokens an event has differs
    print(f"{done} cuts of {CUTS} streams, each continued at the other ingress")

"""Server-sent events: one JSON value in each."""

import json
import secrets
from typing import Any

DONE = b"data: [DONE]\n\n"
# A comment, which clients pass over. A blank line behind it would end an event: once it has seen an
# id, OpenAI's client takes that for one without data, and fails.
PING = b": ping\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
MEDIA = "text/event-stream"
PADDING = 64  # characters, at most


def event(value: Any) -> bytes:
    """One event. JSON escapes line ends, so that the event has one line."""
    return f"data: {_json(value)}\n\n".encode()


def named_event(name: str, value: Any, key: str | None = None) -> bytes:
    """One event with a name, and with an id (`key`) from which its stream can go on."""
    told = "" if key is None else f"id: {key}\n"
    return f"event: {name}\n{told}data: {_json(value)}\n\n".encode()


def padding() -> str:
    """Random text of a random length: a size does not tell how many tokens an event has."""
    return secrets.token_urlsafe(PADDING)[: secrets.randbelow(PADDING)]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

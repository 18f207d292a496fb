"""Server-sent events: one JSON value in each."""

import json
from typing import Any

DONE = b"data: [DONE]\n\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
MEDIA = "text/event-stream"


def event(value: Any) -> bytes:
    """One event. JSON escapes line ends, so that the event has one line."""
    return f"data: {_json(value)}\n\n".encode()


def named_event(name: str, value: Any) -> bytes:
    """One event with a name."""
    return f"event: {name}\ndata: {_json(value)}\n\n".encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

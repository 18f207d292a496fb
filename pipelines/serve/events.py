"""Server-sent events: one JSON value in each."""

import json
from typing import Any

DONE = b"data: [DONE]\n\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
MEDIA = "text/event-stream"


def event(value: Any) -> bytes:
    """One event. JSON escapes line ends, so that the event has one line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"data: {text}\n\n".encode()

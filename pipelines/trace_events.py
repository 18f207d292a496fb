"""Spans in the Trace Event Format, which Perfetto (ui.perfetto.dev) and Chrome show.

A process of the format is one of ours: the driver or ingress, the pool, an actor. A thread of it is
a request.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from models.requests.spans import Span

Json = dict[str, Any]


def trace_events(requests: Iterable[tuple[str, Sequence[Span]]]) -> Json:
    """The file's content, of requests by their names."""
    processes: dict[str, int] = {}
    events: list[Json] = []
    for thread, (request, spans) in enumerate(requests, 1):
        seen: set[int] = set()
        for span in spans:
            process = processes.setdefault(span.where, len(processes) + 1)
            if process not in seen:
                seen.add(process)
                events.append(_named("thread_name", request, process, thread))
            events.append(_event(span, process, thread))
    names = [_named("process_name", where, number) for where, number in processes.items()]
    return {"traceEvents": names + events, "displayTimeUnit": "ms"}


def _event(span: Span, process: int, thread: int) -> Json:
    return {
        "name": span.name,
        "ph": "X",
        "ts": span.began_us,
        "dur": span.took_us,
        "pid": process,
        "tid": thread,
        "args": dict(span.facts),
    }


def _named(what: str, name: str, process: int, thread: int = 0) -> Json:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}

"""The file that says where the time of some requests of a job went."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cluster import storage
from models.requests.request import Result
from models.requests.spans import Fact, Spans
from pipelines.generate.config import GenerateConfig
from pipelines.trace_events import trace_events

FIRST = 32  # requests that are traced where no ids are given


class TraceFile:
    """Chooses requests by their rows' ids, and collects their spans."""

    def __init__(self, ids: Sequence[str] = (), *, first: int = FIRST) -> None:
        """`ids`: of rows; none: the `first` requests."""
        self._ids, self._first = frozenset(ids), first
        self._chosen: dict[str, tuple[str, float]] = {}  # by request: its label, when it was made
        self._ended: dict[str, Spans] = {}

    def wants(self, request: str, row_id: str, sample: int) -> bool:
        """Whether a request of this row is traced, from now on."""
        chosen = row_id in self._ids if self._ids else len(self._chosen) < self._first
        if chosen:
            self._chosen[request] = f"row {row_id}, sample {sample}", time.perf_counter()
        return chosen

    def add(self, results: Sequence[Result]) -> None:
        """Take the spans of results."""
        for result in results:
            if result.id in self._chosen:
                spans = self._ended[result.id] = Spans("driver")
                _, made = self._chosen[result.id]
                facts: dict[str, Fact] = {"tokens": len(result.tokens), "end": result.finish_reason}
                spans.add("request", made, time.perf_counter(), facts)
                spans.found += result.spans

    def content(self) -> bytes:
        """The file: requests in the order in which they were made."""
        ended = (id_ for id_ in self._chosen if id_ in self._ended)
        told = trace_events((self._chosen[id_][0], self._ended[id_].found) for id_ in ended)
        return json.dumps(told, separators=(",", ":")).encode()


@contextmanager
def traced(config: GenerateConfig) -> Iterator[TraceFile | None]:
    """A trace that is written when the job ends, however it ends."""
    if config.trace is None:
        yield None
        return
    file = TraceFile(config.trace_ids)
    try:
        yield file
    finally:
        storage.publish(storage.normalize(config.trace), file.content())

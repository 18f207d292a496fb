"""The file that says where the time of some requests of a job went."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cluster.errors import StorageError
from cluster.storage import storage
from models.requests.request import Result
from models.requests.spans import Fact, Span, Spans
from pipelines.generate.config import GenerateConfig
from pipelines.trace_events import trace_events

log = logging.getLogger(__name__)
FIRST = 32  # requests that are traced where no ids are given


class TraceFile:
    """Chooses requests by their rows' ids, and collects their spans."""

    def __init__(self, ids: Sequence[str] = (), *, first: int = FIRST) -> None:
        """`ids`: of rows; none: the `first` requests."""
        self._ids, self._first = frozenset(ids), first
        self._chosen: dict[str, tuple[str, float]] = {}  # by request: its label, when it was made
        self._rows: set[str] = set()
        self._ended: dict[str, Spans] = {}

    def wants(self, request: str, row_id: str, sample: int) -> bool:
        """Whether a request of this row is traced, from now on."""
        chosen = row_id in self._ids if self._ids else len(self._chosen) < self._first
        if chosen:
            self._rows.add(row_id)
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
        made = ((label, self._spans_of(id_)) for id_, (label, _) in self._chosen.items())
        return json.dumps(trace_events(made), separators=(",", ":")).encode()

    def _spans_of(self, request: str) -> Sequence[Span]:
        if request in self._ended:
            return self._ended[request].found
        spans, (_, made) = Spans("driver"), self._chosen[request]
        spans.add("request", made, time.perf_counter(), {"end": "none yet"})
        return spans.found

    def warn(self) -> None:
        """Say which rows were asked for and not run."""
        missing = sorted(self._ids - self._rows)
        if missing or not self._chosen:
            told = f"the rows {', '.join(missing[:10])}" if missing else "a request"
            log.warning("the trace lacks %s: this run had none", told)


@contextmanager
def traced(config: GenerateConfig) -> Iterator[TraceFile | None]:
    """A trace that is written when the job ends, however it ends. A file that fails is told."""
    if config.trace is None:
        yield None
        return
    file = TraceFile(config.trace_ids)
    try:
        yield file
    finally:
        file.warn()
        try:
            storage.publish(storage.normalize(config.trace), file.content())
        except StorageError as error:
            log.warning("the trace was not written: %s", error)

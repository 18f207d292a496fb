"""The driver's loop: rows in, requests out to the pool, results into shards, shards committed.

Knows nothing of Ray: the source, the pool and the writer are handed in. Requests of the next shard
are queued while the last rows of the one before still run, so that the pool's batch stays full.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from models.errors import InvalidOption
from models.requests.request import Request, Result, Sampling
from pipelines.errors import JobFailed
from pipelines.generate.reporting.trace_file import TraceFile
from pipelines.generate.rows.writer import FinishedShard, Writer
from pipelines.inputs.prefetch import Prefetch
from pipelines.inputs.rows import GRAMMAR, ID, PROBLEM, ROW, SHARD, TOKENS
from pipelines.inputs.seeds import row_seed
from pipelines.output.manifest import Manifest

log = logging.getLogger(__name__)
MAX_OPEN = 16  # shards with rows still to come, where they hold more rows than the pool takes
MAX_PENDING = 8  # shards being written
WAIT_S = 0.2


class RequestPool(Protocol):
    """Where requests run; see actors/pool/pool.py."""

    def submit(self, requests: list[Request]) -> None: ...
    def take(self, timeout_s: float) -> list[Result]: ...
    def free_slots(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is the same for all rows."""

    sampling: Sampling
    seed: int
    noise: str
    samples: int
    shard_rows: dict[int, int]  # input rows of each shard that is to be run


@dataclass(slots=True, kw_only=True)
class OpenShard:
    """A shard some of whose rows have come in; `results` by (row, sample)."""

    tables: list[pa.Table] = field(default_factory=list)
    results: dict[tuple[int, int], Result] = field(default_factory=dict)


class Drive:
    """Runs every shard that is to be run; `run` returns when all are committed."""

    def __init__(
        self,
        job: Job,
        pool: RequestPool,
        writer: Writer,
        manifest: Manifest,
        *,
        on_results: Callable[[Sequence[Result]], None] = lambda results: None,
        traces: TraceFile | None = None,
    ) -> None:
        self._job, self._pool, self._writer, self._manifest = job, pool, writer, manifest
        self._on_results, self._traces = on_results, traces
        self._open: dict[int, OpenShard] = {}
        self._queue: deque[Request] = deque()
        self._running: set[str] = set()
        self._left = len(job.shard_rows)  # shards to commit
        rows = max(job.shard_rows.values(), default=1) * job.samples
        self._max_open = MAX_OPEN + 2 * math.ceil(pool.free_slots() / rows)
        self.began: float | None = None  # when the first request went to the pool
        self._committed: float | None = None  # when the last shard was

    def run(self, tables: Prefetch[pa.Table]) -> None:
        """Take tables of encoded rows (see inputs/rows.py), in any order, until all is done."""
        while self._left:
            self._feed(tables)
            self._settle(self._pool.take(self._patience(tables)) if self._running else [])
            self._commit(idle=tables.ended and not self._running)

    def _feed(self, tables: Prefetch[pa.Table]) -> None:
        """Keep the pool's queue full."""
        free = self._pool.free_slots()
        while len(self._queue) < free and self._may_open:
            table = tables.get(timeout_s=0 if self._running or self._queue else WAIT_S)
            if table is None:
                break
            self._admit(table)
        requests = [self._queue.popleft() for _ in range(min(free, len(self._queue)))]
        if requests:
            self.began = self.began or time.monotonic()
            self._running.update(request.id for request in requests)
            self._pool.submit(requests)

    @property
    def _may_open(self) -> bool:
        """Whether to read on: few shards are open, or all wait for rows not read yet."""
        return len(self._open) < self._max_open or not (self._running or self._queue)

    def _patience(self, tables: Prefetch[pa.Table]) -> float:
        """How long to wait for results: not long while there is more to feed."""
        hungry = not self._queue and not tables.ended and self._may_open
        return WAIT_S / 10 if hungry and self._pool.free_slots() > 0 else WAIT_S

    def _admit(self, table: pa.Table) -> None:
        """Queue the requests of some rows; rows with a problem have their results at once."""
        shards, rows = table.column(SHARD).to_pylist(), table.column(ROW).to_pylist()
        problems, prompts = table.column(PROBLEM).to_pylist(), table.column(TOKENS).to_pylist()
        ids, grammars = table.column(ID).to_pylist(), table.column(GRAMMAR).to_pylist()
        for shard in sorted(set(shards)):
            self._open.setdefault(shard, OpenShard()).tables.append(table)
        failed = []
        for shard, row, problem, prompt, row_id, grammar in zip(
            shards, rows, problems, prompts, ids, grammars, strict=True
        ):
            for sample in range(self._job.samples):
                name = f"{shard}/{row}/{sample}"
                if problem is not None:
                    failed.append(_failed(name, problem))
                    continue
                try:
                    self._queue.append(self._request(name, prompt, row_id, sample, grammar))
                except InvalidOption as error:  # a grammar does not go with the job's options
                    failed.append(_failed(name, str(error)))
        self._place(failed)

    def _request(
        self, name: str, prompt: list[int], row_id: str, sample: int, grammar: str | None
    ) -> Request:
        sampling = self._job.sampling
        if grammar is not None:
            sampling = replace(sampling, grammar=grammar)
        return Request(
            id=name,
            prompt=tuple(prompt),
            sampling=sampling,
            seed=row_seed(self._job.seed, row_id, sample),
            noise=self._job.noise,
            trace=self._traces is not None and self._traces.wants(name, row_id, sample),
        )

    def _settle(self, results: list[Result]) -> None:
        new = [result for result in results if result.id in self._running]
        self._running.difference_update(result.id for result in new)
        if self._traces is not None:
            self._traces.add(new)
        self._place(new)

    def _place(self, results: list[Result]) -> None:
        """Put results into their shards; hand complete shards to the writer."""
        if not results:
            return
        self._on_results(results)
        touched = set()
        for result in results:
            shard, row, sample = map(int, result.id.split("/"))
            self._open[shard].results[row, sample] = result
            touched.add(shard)
        for shard in sorted(touched):
            expected = self._job.shard_rows[shard] * self._job.samples
            if len(self._open[shard].results) == expected:
                self._writer.begin(self._finish(shard, self._open.pop(shard)))

    def _finish(self, index: int, shard: OpenShard) -> FinishedShard:
        table = pa.concat_tables(shard.tables)
        rows = table.filter(pc.equal(table.column(SHARD), index)).sort_by(ROW)
        ids = rows.column(ID).to_pylist()
        results = tuple(result for _, result in sorted(shard.results.items()))
        _log_failures(ids, results, self._job.samples)
        samples = range(self._job.samples)
        return FinishedShard(
            index=index,
            rows=rows,
            results=results,
            seeds=tuple(row_seed(self._job.seed, i, sample) for i in ids for sample in samples),
        )

    def _commit(self, *, idle: bool) -> None:
        """Commit what is written; wait for it where nothing else is to be done."""
        if idle and not self._writer.pending:
            raise JobFailed(f"the input ended before the rows of {self._left} shards had come")
        for entry in self._writer.finished(wait=idle or self._writer.pending > MAX_PENDING):
            entry = replace(entry, seconds=self._since_commit())
            self._manifest.commit(entry)
            facts = {"shard": entry.shard, "rows": entry.rows, "tokens": entry.tokens}
            log.info("shard %d is committed", entry.shard, extra=facts)
            self._left -= 1

    def _since_commit(self) -> float:
        """Seconds of generating that no entry counts yet."""
        now = time.monotonic()
        since = self._committed or self.began or now
        self._committed = now
        return now - since


def _log_failures(ids: Sequence[str], results: Sequence[Result], samples: int) -> None:
    for i, result in enumerate(results):
        if result.error is not None:
            facts = {"row": ids[i // samples], "request": result.id}
            log.info("a row failed: %s", result.error, extra=facts)


def _failed(name: str, problem: str) -> Result:
    return Result(id=name, tokens=(), finish_reason="error", error=problem)

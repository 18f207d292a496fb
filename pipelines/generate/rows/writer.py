"""Turns a finished shard into its output files: decode, put in columns, write in one instant."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import storage
from cluster.storage.lease import Ticket
from models.exactness import weakest
from models.requests.request import Result
from pipelines.inputs.rows import TOKENS
from pipelines.modality.modality import Codec, Modality
from pipelines.output.columns import output_rows, repeated
from pipelines.output.manifest import Entry, part_name


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedShard:
    """All of a shard's rows in order, and each row's samples one after the other."""

    index: int
    rows: pa.Table
    results: tuple[Result, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where output files go and what they hold. `ticket`: of the folder's lease, if it has one."""

    url: str
    schema: pa.Schema
    modality: Modality
    id_field: str
    samples: int
    ticket: Ticket | None = None

    def check(self) -> None:
        """Raise LeaseLost if another run has taken the folder over."""
        if self.ticket is not None:
            self.ticket.check()


class ShardWriter:
    """Writes shards; runs in the driver or as an actor."""

    def __init__(self, layout: Layout, codec: Codec) -> None:
        self._layout, self._codec = layout, codec

    def write(self, shard: FinishedShard) -> Entry:
        """Write a shard's files, that of the rows last; returns what will commit them.

        Raises:
            LeaseLost: another run has taken the folder over; nothing more is written.
        """
        layout, modality = self._layout, self._layout.modality
        rows = repeated(shard.rows, layout.samples)
        contents = modality.contents(rows, shard.results, self._codec, samples=layout.samples)
        table = output_rows(
            rows,
            shard.results,
            shard.seeds,
            {modality.column.name: contents.values},
            schema=layout.schema,
            id_field=layout.id_field,
            samples=layout.samples,
        )
        data = parquet_bytes(table)
        layout.check()
        publish_all(layout.url, contents.files)
        layout.check()
        storage.publish(storage.join(layout.url, part_name(shard.index)), data)
        return _entry(shard, len(data), contents.files)


class Writer(Protocol):
    """Where the driver hands finished shards to; bounded work in the background."""

    def begin(self, shard: FinishedShard) -> None: ...
    def finished(self, *, wait: bool) -> list[Entry]: ...

    @property
    def pending(self) -> int: ...


class LocalWriter:
    """Writes shards at once, in the driver itself."""

    def __init__(self, writer: ShardWriter) -> None:
        self._writer = writer
        self._entries: list[Entry] = []

    @property
    def pending(self) -> int:
        """Shards handed in whose entries were not handed out."""
        return len(self._entries)

    def begin(self, shard: FinishedShard) -> None:
        """Write it."""
        self._entries.append(self._writer.write(shard))

    def finished(self, *, wait: bool) -> list[Entry]:
        """Entries of shards that are written since the last call."""
        entries, self._entries = self._entries, []
        return entries


def parquet_bytes(table: pa.Table) -> bytes:
    """The same bytes for the same table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def publish_all(url: str, files: Mapping[str, bytes]) -> None:
    """Write files, by their names in the folder, several at a time."""
    if files:
        with ThreadPoolExecutor(16) as pool:
            urls = (storage.join(url, name) for name in files)
            list(pool.map(storage.publish, urls, files.values()))


def _entry(shard: FinishedShard, size_bytes: int, files: Mapping[str, bytes]) -> Entry:
    good = [result for result in shard.results if result.finish_reason != "error"]
    lengths = [len(tokens or ()) for tokens in shard.rows.column(TOKENS).to_pylist()]
    return Entry(
        shard=shard.index,
        file=part_name(shard.index),
        size_bytes=size_bytes,
        rows=len(shard.results),
        rows_failed=len(shard.results) - len(good),
        prompt_tokens=sum(lengths),
        tokens=sum(len(result.tokens) for result in good),
        exactness=weakest([result.exactness for result in good]),
        rows_retryable=sum(result.retryable for result in shard.results),
        rows_without_room=sum(result.retryable and result.invalid for result in shard.results),
        files={name: len(data) for name, data in files.items()},
    )

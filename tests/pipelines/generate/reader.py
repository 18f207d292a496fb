"""A reader of an output folder, who looks again and again while a job writes it."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import StorageError
from cluster.storage import storage

BETWEEN_S, BETWEEN_REMOTE_S = 0.05, 0.5
ENTRY = re.compile(r"_manifest/(\d+)\.json")
PART = re.compile(r"part-(\d+)\.parquet")


class Reader:
    """What it finds wrong: a file that is visible and not whole, an entry without its file."""

    def __init__(self, url: str, rows: int) -> None:
        """`rows`: of each shard."""
        self.url, self.wrong = url, list[str]()
        self.looks, self.early = 0, 0  # early: files seen before their entries
        self._rows, self._committed = rows, set[int]()

    def look(self) -> None:
        """At what is there now, as listed in one instant."""
        names = [info.name for info in storage.list_files(self.url)]
        entries = {int(found[1]) for name in names if (found := ENTRY.fullmatch(name))}
        for name in names:
            if name[0] in "._":  # readers of Parquet folders pass them over
                continue
            part = PART.fullmatch(name)
            if part is None:
                self.wrong.append(f"{name} is visible")
            elif int(part[1]) not in entries:
                self.early += 1
                self._check(name)
        for shard in sorted(entries - self._committed):
            entry = json.loads(storage.read_bytes(f"{self.url}/_manifest/{shard:05d}.json"))
            self._check(entry["file"], entry["size_bytes"])
            self._committed.add(shard)
        self.looks += 1

    def _check(self, name: str, size_bytes: int | None = None) -> None:
        try:
            data = storage.read_bytes(f"{self.url}/{name}")
            rows = pq.read_table(pa.BufferReader(data)).num_rows
        except (OSError, StorageError, pa.ArrowInvalid) as error:
            self.wrong.append(f"{name}: {error!r}")
            return
        if rows != self._rows or size_bytes not in (None, len(data)):
            self.wrong.append(f"{name}: {rows} rows, {len(data)} of {size_bytes} bytes")


@contextmanager
def watched(url: str, *, rows: int) -> Iterator[Reader]:
    """Fails at its end if a reader has ever seen a part of a shard."""
    reader, stopped = Reader(url, rows), threading.Event()

    def look() -> None:
        between_s = BETWEEN_S if storage.is_local(url) else BETWEEN_REMOTE_S
        while not stopped.wait(between_s):
            try:
                reader.look()
            except Exception as error:
                reader.wrong.append(repr(error))
                raise

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        stopped.set()
        thread.join()
    reader.look()
    assert reader.wrong == []

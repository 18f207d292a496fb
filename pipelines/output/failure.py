"""Why the first of a job's failed rows failed, in a line for people who do not read the rows."""

from collections.abc import Iterable

import pyarrow.parquet as pq

from cluster.storage import storage
from pipelines.output.manifest import Entry

LONGEST = 300


def first_failure(url: str, entries: Iterable[Entry], *, id_field: str) -> str | None:
    """Its id and its error, in the input's order; None if no row failed.

    Raises StorageError: the output cannot be read.
    """
    entry = min((e for e in entries if e.rows_failed), key=lambda e: e.shard, default=None)
    if entry is None:
        return None
    with storage.open_input(storage.join(url, entry.file)) as source:
        rows = pq.read_table(source, columns=[id_field, "error"]).to_pylist()
    row = next(row for row in rows if row["error"] is not None)
    error, name = row["error"], row[id_field]
    told = error if name is None or error.startswith(f"{name}: ") else f"{name}: {error}"
    told = " ".join(told.split())
    return told if len(told) <= LONGEST else f"{told[:LONGEST]}..."

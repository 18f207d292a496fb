"""Recorded requests on disk: Parquet files of token ids, the newest ones, within bounds.

FOLDER/000000000128.parquet holds the rows up to the 128th that was ever recorded. Columns are those
that `paceline distill drafter --data` takes.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.messages import Row
from cluster.storage import storage
from pipelines.serve.learning.bounds import MOST_BYTES, MOST_ROWS

FILE_ROWS = 64  # of a file; fewer are in memory until the next file, or the server's end
SCHEMA = pa.schema(
    [
        ("prompt_ids", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.int32())),
        ("seed", pa.int64()),
        ("temperature", pa.float32()),
    ]
)


class RowStore:
    """The rows in a folder, which only its owner can read. `total`: ever recorded."""

    def __init__(
        self,
        folder: Path,
        *,
        most_rows: int = MOST_ROWS,
        most_bytes: int = MOST_BYTES,
        least_total: int = 0,
    ) -> None:
        """`least_total`: rows that were recorded before, though their files may be gone."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.folder, self._most_rows, self._most_bytes = folder, most_rows, most_bytes
        storage.remove_leftovers(str(folder))
        files = row_files(folder)
        self.total = max(least_total, _last(files[-1]) if files else 0)
        self._waiting: list[Row] = []

    def add(self, rows: Iterable[Row]) -> None:
        """Record rows; files are written as they become full."""
        self._waiting += rows
        while len(self._waiting) >= FILE_ROWS:
            self._write(self._waiting[:FILE_ROWS])
            del self._waiting[:FILE_ROWS]

    @property
    def count(self) -> int:
        """All rows ever recorded, those included that are not in a file yet."""
        return self.total + len(self._waiting)

    def flush(self) -> None:
        """Write what waits for a full file."""
        if self._waiting:
            self._write(self._waiting)
            self._waiting = []

    def _write(self, rows: list[Row]) -> None:
        columns = [
            [list(row.prompt) for row in rows],
            [list(row.tokens) for row in rows],
            [row.seed for row in rows],
            [row.temperature for row in rows],
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, schema=SCHEMA), sink, compression="zstd")
        self.total += len(rows)
        file = self.folder / f"{self.total:012}.parquet"
        storage.publish(str(file), sink.getvalue().to_pybytes())
        self._forget()

    def _forget(self) -> None:
        """Delete the oldest files beyond the bounds."""
        files = row_files(self.folder)
        left = sum(file.stat().st_size for file in files)
        for oldest in files[:-1]:
            if self.total - _last(oldest) < self._most_rows and left <= self._most_bytes:
                return
            left -= oldest.stat().st_size
            oldest.unlink()


def row_files(folder: Path) -> list[Path]:
    """The files of rows, the oldest first."""
    return sorted(file for file in folder.glob("*.parquet") if file.stem.isdecimal())


def newest_rows(folder: Path, most: int) -> list[Row]:
    """Up to `most` rows, the newest first."""
    found: list[Row] = []
    for file in reversed(row_files(folder)):
        found += [_row(values) for values in reversed(list(_values(file)))]
        if len(found) >= most:
            break
    return found[:most]


def _values(file: Path) -> Iterator[dict[str, Any]]:
    yield from pq.read_table(file, schema=SCHEMA).to_pylist()


def _row(values: dict[str, Any]) -> Row:
    return Row(
        prompt=tuple(values["prompt_ids"]),
        tokens=tuple(values["tokens"]),
        seed=values["seed"],
        temperature=values["temperature"],
    )


def _last(file: Path) -> int:
    """The number of a file's last row."""
    return int(file.stem)

"""Recorded rows on disk: whole files, the newest ones, and nothing lost at a restart."""

from pathlib import Path

from actors.messages import Row
from pipelines.serve.learning.rows import FILE_ROWS, RowStore, newest_rows, row_files


def row(number: int) -> Row:
    return Row(prompt=(1, number), tokens=(2, 3), seed=2**63 - 1 - number, temperature=0.5)


def test_rows_come_back_the_newest_first(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "rows")
    store.add(map(row, range(FILE_ROWS + 2)))
    assert (store.count, store.total) == (FILE_ROWS + 2, FILE_ROWS)
    store.flush()
    assert newest_rows(store.folder, 3) == [row(n) for n in range(FILE_ROWS + 1, FILE_ROWS - 2, -1)]
    assert (store.folder.stat().st_mode & 0o777) == 0o700
    again = RowStore(store.folder)
    again.add([row(99)])
    again.flush()
    assert again.total == FILE_ROWS + 3
    assert newest_rows(store.folder, 1) == [row(99)]


def test_rows_that_were_deleted_still_count(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "rows", least_total=500)
    (store.folder / "notes.parquet").write_text("of someone else")
    store.add(map(row, range(FILE_ROWS)))
    assert [int(file.stem) for file in row_files(store.folder)] == [500 + FILE_ROWS]


def test_the_oldest_files_go_by_number_and_by_size(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "rows", most_rows=2 * FILE_ROWS)
    store.add(map(row, range(4 * FILE_ROWS)))
    assert [int(file.stem) for file in row_files(store.folder)] == [3 * FILE_ROWS, 4 * FILE_ROWS]
    small = RowStore(tmp_path / "small", most_bytes=1)
    small.add(map(row, range(3 * FILE_ROWS)))
    assert [int(file.stem) for file in row_files(small.folder)] == [3 * FILE_ROWS]

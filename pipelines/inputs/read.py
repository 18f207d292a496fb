"""The rows of a shard, read from its files; what cannot be read is a row with its reason."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import StorageError
from cluster.storage import storage
from pipelines.errors import InvalidInput
from pipelines.inputs import lines
from pipelines.inputs.columns import fit
from pipelines.inputs.formats import FORMAT
from pipelines.inputs.shards import Piece, Shard

_CHANGED = "input file {!r} has changed while the job runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Consecutive rows: the input's columns, and what concerns each row.

    `places` are "<file>:<row number>", `problems` say why a row could not be read; `prompts`,
    `ids` and `formats` are the fields' values as they stood in the file, None where there is none.
    """

    columns: pa.Table
    places: list[str]
    problems: list[str | None]
    prompts: list[object]
    ids: list[object]
    formats: list[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Rows of a piece in one row group, which begins at the file's row `start`."""

    group: int
    start: int
    first: int
    num_rows: int


def read_shard(shard: Shard, schema: pa.Schema, *, prompt_field: str, id_field: str) -> Rows:
    """All rows of a shard, in order, with the columns of `schema`."""
    return _join([_read(piece, schema, prompt_field, id_field) for piece in shard.pieces])


def _join(parts: list[Rows]) -> Rows:
    return Rows(
        columns=pa.concat_tables([part.columns for part in parts]).combine_chunks(),
        places=[place for part in parts for place in part.places],
        problems=[problem for part in parts for problem in part.problems],
        prompts=[prompt for part in parts for prompt in part.prompts],
        ids=[row_id for part in parts for row_id in part.ids],
        formats=[each for part in parts for each in part.formats],
    )


def _read(piece: Piece, schema: pa.Schema, prompt_field: str, id_field: str) -> Rows:
    if piece.file.kind == "parquet":
        return _read_parquet(piece, schema, prompt_field, id_field)
    return _read_lines(piece, schema, prompt_field, id_field)


def _read_lines(piece: Piece, schema: pa.Schema, prompt_field: str, id_field: str) -> Rows:
    places, problems, values = [], [], list[dict[str, Any]]()
    for number, content in _contents(piece):
        value, problem = _parse(piece, content, prompt_field)
        places.append(f"{piece.file.name}:{number}")
        problems.append(problem)
        values.append(value)
    if len(values) != piece.num_rows:
        raise InvalidInput(_CHANGED.format(piece.file.url))
    arrays = [
        pa.array([fit(value.get(field.name), field.type) for value in values], field.type)
        for field in schema
    ]
    return Rows(
        columns=pa.table(arrays, schema=schema),
        places=places,
        problems=problems,
        prompts=[value.get(prompt_field) for value in values],
        ids=[value.get(id_field) for value in values],
        formats=[value.get(FORMAT) for value in values],
    )


def _contents(piece: Piece) -> Iterator[tuple[int, bytes]]:
    with storage.open_input(piece.file.url) as file:
        file.seek(piece.offset)
        rows = lines.lines(file, line=piece.line)
        yield from islice(rows, piece.skip, piece.skip + piece.num_rows)


def _parse(piece: Piece, content: bytes, field: str) -> tuple[dict[str, Any], str | None]:
    try:
        if piece.file.kind == "text":
            return {field: lines.parse_text(content)}, None
        return lines.parse_json(content), None
    except ValueError as error:
        return {}, str(error)


def _read_parquet(piece: Piece, schema: pa.Schema, prompt_field: str, id_field: str) -> Rows:
    try:
        overlaps = list(_overlaps(piece))
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        return _unreadable(piece, schema, _reason(piece, error))
    return _join(
        [_read_group(piece, overlap, schema, prompt_field, id_field) for overlap in overlaps]
    )


def _read_group(
    piece: Piece, overlap: Overlap, schema: pa.Schema, prompt_field: str, id_field: str
) -> Rows:
    piece = replace(piece, first=overlap.first, num_rows=overlap.num_rows)
    try:
        table = _row_group(piece.file.url, piece.file.size_bytes, overlap.group)
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        return _unreadable(piece, schema, _reason(piece, error))
    table = table.slice(overlap.first - overlap.start, overlap.num_rows)
    return Rows(
        columns=_conform(table, schema),
        places=_numbered(piece),
        problems=[None] * piece.num_rows,
        prompts=_values(table, prompt_field),
        ids=_values(table, id_field),
        formats=_values(table, FORMAT),
    )


def _overlaps(piece: Piece) -> Iterator[Overlap]:
    """The part of the piece that each row group holds."""
    with storage.open_input(piece.file.url) as source:
        metadata = pq.ParquetFile(source).metadata
    start, last = 0, piece.first + piece.num_rows
    for group in range(metadata.num_row_groups):
        end = start + metadata.row_group(group).num_rows
        first, num_rows = max(start, piece.first), min(end, last) - max(start, piece.first)
        if num_rows > 0:
            yield Overlap(group=group, start=start, first=first, num_rows=num_rows)
        start = end


@lru_cache(maxsize=1)  # the next shard's rows are often in the same group
def _row_group(url: str, size_bytes: int, group: int) -> pa.Table:
    with storage.open_input(url) as source:
        return pq.ParquetFile(source, page_checksum_verification=True).read_row_group(group)


def _reason(piece: Piece, error: BaseException) -> str:
    """Why rows are unreadable, where the file is still the one that was surveyed."""
    if storage.file_size(piece.file.url) != piece.file.size_bytes:
        raise InvalidInput(_CHANGED.format(piece.file.url)) from error
    return f"not readable Parquet rows: {' '.join(str(error).split())[:300]}"


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of `schema`, nulls where it has none."""
    arrays = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def _values(table: pa.Table, field: str) -> list[object]:
    known = field in table.column_names
    return table.column(field).to_pylist() if known else [None] * table.num_rows


def _unreadable(piece: Piece, schema: pa.Schema, problem: str) -> Rows:
    nothing: list[object] = [None] * piece.num_rows
    return Rows(
        columns=pa.table([pa.nulls(piece.num_rows, f.type) for f in schema], schema=schema),
        places=_numbered(piece),
        problems=[problem] * piece.num_rows,
        prompts=nothing,
        ids=nothing,
        formats=nothing,
    )


def _numbered(piece: Piece) -> list[str]:
    numbers = range(piece.first + 1, piece.first + piece.num_rows + 1)
    return [f"{piece.file.name}:{number}" for number in numbers]

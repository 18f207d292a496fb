"""Rows as `paceline generate` writes them, as a source of samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import storage
from cluster.storage.storage import FileInfo
from pipelines.errors import InvalidInput
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.pictures import decode
from pipelines.evaluate.samples import Images, Ints, Samples, Source, label_text

ERROR, PLACE, FOLDER = "error", "__place", "__folder"


def parquet_source(url: str, files: Sequence[FileInfo], config: EvaluateConfig) -> Source:
    """The rows of all files that hold no error.

    Raises:
        InvalidInput: a file cannot be read, the files' columns differ, or a label is missing.
    """
    names = (config.label_field, config.image_field, config.tokens_field, config.prompt_field)
    tables = [_read(file, names) for file in files]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InvalidInput(f"the files of {url!r} have different columns: {error}") from error
    good = _good(table)
    return Source(
        url=url,
        num_rows=good.num_rows,
        take=lambda rows: _take(good.take(pa.array(rows)), url, config),
        labels=_labels(good, config.label_field),
        num_dropped=table.num_rows - good.num_rows,
    )


def _read(file: FileInfo, names: Sequence[str]) -> pa.Table:
    try:
        with storage.open_input(file.url) as source:
            found = pq.ParquetFile(source)
            known = [name for name in (*names, ERROR) if name in found.schema_arrow.names]
            table = found.read(columns=known)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidInput(f"{file.url} is not readable Parquet: {reason}") from error
    places = pa.array([f"{file.name}:{i + 1}" for i in range(table.num_rows)], pa.string())
    folder = pa.array([file.url.rpartition("/")[0]] * table.num_rows, pa.string())
    return table.append_column(PLACE, places).append_column(FOLDER, folder)


def _good(table: pa.Table) -> pa.Table:
    if ERROR not in table.column_names:
        return table
    return table.filter(table.column(ERROR).is_null())


def _labels(table: pa.Table, field: str) -> tuple[str, ...] | None:
    if field not in table.column_names:
        return None
    values = table.column(field).to_pylist()
    _refuse_missing(values, table, field)
    return tuple(label_text(value) for value in values)


def _take(table: pa.Table, url: str, config: EvaluateConfig) -> Samples:
    columns: Mapping[str, list[Any]] = table.to_pydict()
    prompts = columns.get(config.prompt_field)
    return Samples(
        url=url,
        num_rows=table.num_rows,
        images=_images(table, columns, config.image_field),
        labels=_labels(table, config.label_field),
        tokens=_tokens(table, columns, config.tokens_field),
        prompts=None if prompts is None else tuple(prompts),
    )


def _images(table: pa.Table, columns: Mapping[str, list[Any]], field: str) -> Images | None:
    values = columns.get(field)
    if values is None:
        return None
    _refuse_missing(values, table, field)
    rows = zip(columns[PLACE], columns[FOLDER], values, strict=True)
    return decode((place, _encoded(place, folder, value, field)) for place, folder, value in rows)


def _encoded(place: str, folder: str, value: object, field: str) -> bytes:
    """A picture's bytes, from the row itself or from the file that it names."""
    if isinstance(value, Mapping):  # as Hugging Face's data sets hold images
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        kind = type(value).__name__
        raise InvalidInput(f"{place}: {field!r} is {kind}, no picture's bytes and no file's path")
    known = "://" in value or value.startswith("/")
    return storage.read_bytes(storage.normalize(value if known else storage.join(folder, value)))


def _tokens(
    table: pa.Table, columns: Mapping[str, list[Any]], field: str
) -> tuple[Ints, ...] | None:
    values = columns.get(field)
    if values is None:
        return None
    kind = table.schema.field(field).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_integer(
        kind.value_type
    ):
        raise InvalidInput(f"column {field!r} is {kind}: lists of whole numbers are needed")
    _refuse_missing(values, table, field)
    return tuple(np.array(row, dtype=np.int64) for row in values)


def _refuse_missing(values: Sequence[object], table: pa.Table, field: str) -> None:
    for i, value in enumerate(values):
        if value is None:
            place = table.column(PLACE)[i].as_py()
            raise InvalidInput(f"{place}: field {field!r} is missing, and the row holds no error")

"""What one input file holds: how many rows, which columns, and a digest that tells it from others.

Every file is read once from end to end, so that the digest is one of its whole content. A Parquet
file that cannot be read is refused; a malformed line is a row, which becomes an error row.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import StorageError
from cluster.storage import storage
from pipelines.errors import InvalidInput
from pipelines.inputs import lines
from pipelines.inputs.columns import Shape, merge_fields, shape_of
from pipelines.inputs.digest import digest as digest_of
from pipelines.inputs.files import InputFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One file's rows and columns. `marks`: (byte offset, line) of every STRIDE-th row.

    `without_id`: some row of lines has no id of its own, or cannot be read.
    """

    file: InputFile
    num_rows: int
    digest: str
    schema: pa.Schema | None = None  # Parquet
    shapes: dict[str, Shape] = field(default_factory=dict)  # JSON Lines, text
    marks: tuple[tuple[int, int], ...] = ()
    without_id: bool = False


def survey(file: InputFile, *, prompt_field: str, id_field: str = "id") -> Survey:
    """Look through one file; text files have one column, named as the prompt's field.

    Raises:
        InvalidInput: it is no readable Parquet file, although it is called one.
    """
    if file.kind == "parquet":
        return _survey_parquet(file)
    shapes: dict[str, Shape] = {prompt_field: "string"} if file.kind == "text" else {}
    return _survey_lines(file, shapes, id_field)


def _survey_parquet(file: InputFile) -> Survey:
    try:
        with storage.open_input(file.url) as source:
            found = pq.ParquetFile(source)
            schema, num_rows = found.schema_arrow.remove_metadata(), found.metadata.num_rows
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        reason = _one_line(error).rstrip(".")
        raise InvalidInput(
            f"input file {file.url!r} is no readable Parquet file: {reason}. "
            "Mend it, or take it out of the input"
        ) from error
    return Survey(file=file, num_rows=num_rows, digest=digest_of(file.url), schema=schema)


def _survey_lines(file: InputFile, shapes: dict[str, Shape], id_field: str) -> Survey:
    offset, num_rows, marks, without_id = 0, 0, [], False
    digest = hashlib.blake2b(digest_size=16)
    with storage.open_input(file.url) as source:
        for number, content in enumerate(source, 1):
            digest.update(content)
            if not content.isspace():
                if num_rows % lines.STRIDE == 0:
                    marks.append((offset, number))
                num_rows += 1
                row = _parsed(content) if file.kind == "jsonl" else {}
                shapes = _grow(shapes, row)
                without_id |= row.get(id_field) is None
            offset += len(content)
    return Survey(
        file=file,
        num_rows=num_rows,
        digest=digest.hexdigest(),
        shapes=shapes,
        marks=tuple(marks),
        without_id=without_id,
    )


def _parsed(content: bytes) -> dict[str, Any]:
    """A line's object; of a malformed line an empty one."""
    try:
        return lines.parse_json(content)
    except ValueError:
        return {}


def _grow(shapes: dict[str, Shape], row: dict[str, Any]) -> dict[str, Shape]:
    """The columns with those of one more row."""
    grown = merge_fields(shapes, {name: shape_of(value) for name, value in row.items()})
    assert isinstance(grown, dict)  # no limit was given
    return grown


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

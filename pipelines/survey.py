"""What one input file holds: how many rows, which columns, and a digest that tells it from others.

JSON Lines and text are read once from end to end; of Parquet only the footer is. A file that
cannot be read as what it claims to be counts as one row, which becomes an error row.
"""

import hashlib
import struct
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from pipelines import lines
from pipelines.columns import Shape, merge_fields, shape_of
from pipelines.inputs import InputFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One file's rows and columns. `marks`: (byte offset, line) of every STRIDE-th row."""

    file: InputFile
    num_rows: int
    digest: str
    schema: pa.Schema | None = None  # Parquet
    shapes: dict[str, Shape] = field(default_factory=dict)  # JSON Lines, text
    marks: tuple[tuple[int, int], ...] = ()
    broken: str | None = None


def survey(file: InputFile, *, prompt_field: str) -> Survey:
    """Look through one file; text files have one column, named as the prompt's field."""
    if file.kind == "parquet":
        return _survey_parquet(file)
    shapes: dict[str, Shape] = {prompt_field: "string"} if file.kind == "text" else {}
    return _survey_lines(file, shapes)


def _survey_parquet(file: InputFile) -> Survey:
    with storage.open_input(file.url) as source:
        source.seek(max(0, file.size_bytes - 8))
        tail = source.read()
        footer_bytes = struct.unpack("<i", tail[:4])[0] if tail.endswith(b"PAR1") else 0
        source.seek(max(0, file.size_bytes - 8 - max(0, footer_bytes)))
        digest = _digest(source.read(), file.size_bytes.to_bytes(8, "little"))
        try:
            found = pq.ParquetFile(source)
            schema = found.schema_arrow.remove_metadata()
        except (pa.ArrowException, OSError) as error:
            broken = f"not a readable Parquet file: {_one_line(error)}"
            return Survey(file=file, num_rows=1, digest=digest, broken=broken)
    return Survey(file=file, num_rows=found.metadata.num_rows, digest=digest, schema=schema)


def _survey_lines(file: InputFile, shapes: dict[str, Shape]) -> Survey:
    offset, num_rows, marks, digest = 0, 0, [], hashlib.blake2b(digest_size=16)
    with storage.open_input(file.url) as source:
        for number, content in enumerate(source, 1):
            digest.update(content)
            if not content.isspace():
                if num_rows % lines.STRIDE == 0:
                    marks.append((offset, number))
                num_rows += 1
                if file.kind == "jsonl":
                    shapes = _grow(shapes, content)
            offset += len(content)
    return Survey(
        file=file, num_rows=num_rows, digest=digest.hexdigest(), shapes=shapes, marks=tuple(marks)
    )


def _grow(shapes: dict[str, Shape], content: bytes) -> dict[str, Shape]:
    """The columns with those of one more line; a malformed line adds none."""
    try:
        row = lines.parse_json(content)
    except ValueError:
        return shapes
    grown = merge_fields(shapes, {name: shape_of(value) for name, value in row.items()})
    assert isinstance(grown, dict)  # no limit was given
    return grown


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

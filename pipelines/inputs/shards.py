"""How an input is cut into shards: consecutive rows, across files, each read on its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import InvalidInput
from pipelines.inputs.columns import Shape, arrow_type, merge, merge_fields
from pipelines.inputs.files import InputFile
from pipelines.inputs.lines import STRIDE
from pipelines.inputs.survey import Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows `first` to `first + num_rows` (counted from 0) of one file.

    `offset` and `line` are where row `first - skip` stands in a file of lines.
    """

    file: InputFile
    first: int
    num_rows: int
    offset: int = 0
    line: int = 1
    skip: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The rows that one output file answers."""

    index: int
    pieces: tuple[Piece, ...]

    @property
    def num_rows(self) -> int:
        """Input rows."""
        return sum(piece.num_rows for piece in self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """The whole input: its columns and its shards."""

    surveys: tuple[Survey, ...]
    schema: pa.Schema
    shards: tuple[Shard, ...]

    @property
    def num_rows(self) -> int:
        """Input rows."""
        return sum(shard.num_rows for shard in self.shards)


def make_plan(surveys: Sequence[Survey], *, shard_rows: int, id_field: str = "id") -> ShardPlan:
    """Cut the files, in order, into shards of `shard_rows` rows; the last may be shorter."""
    shards: list[Shard] = []
    pieces: list[Piece] = []
    room = shard_rows
    for piece in _cut(surveys, shard_rows):
        pieces.append(piece)
        room -= piece.num_rows
        if room == 0:
            shards.append(Shard(index=len(shards), pieces=tuple(pieces)))
            pieces, room = [], shard_rows
    if pieces:
        shards.append(Shard(index=len(shards), pieces=tuple(pieces)))
    return ShardPlan(surveys=tuple(surveys), schema=unify(surveys, id_field), shards=tuple(shards))


def unify(surveys: Sequence[Survey], id_field: str) -> pa.Schema:
    """One schema that holds every file's columns, in the order of their first appearance.

    Ids are texts where some row has none of its own: it gets its place as one.
    """
    shapes: dict[str, Shape] = {}
    for found in surveys:
        merged = merge_fields(shapes, found.shapes)
        assert isinstance(merged, dict)  # no limit was given
        shapes = merged
    if id_field in shapes and _gets_ids(surveys, id_field):
        shapes[id_field] = merge(shapes[id_field], "string")
    of_lines = pa.schema([(name, arrow_type(shape)) for name, shape in shapes.items()])
    schema = pa.schema([])
    for name, other in [*_parquet_schemas(surveys), ("the JSON Lines and text files", of_lines)]:
        try:
            schema = pa.unify_schemas([schema, other], promote_options="permissive")
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())
            raise InvalidInput(
                f"the columns of {name} do not fit those before: {reason}"
            ) from error
    return schema


def _gets_ids(surveys: Sequence[Survey], id_field: str) -> bool:
    """Whether rows of lines get texts as ids. Parquet columns of another type stay as they are."""
    schemas = [schema for _, schema in _parquet_schemas(surveys) if id_field in schema.names]
    of_text = all(pa.types.is_string(schema.field(id_field).type) for schema in schemas)
    return of_text and any(found.without_id for found in surveys)


def _parquet_schemas(surveys: Sequence[Survey]) -> Iterator[tuple[str, pa.Schema]]:
    for found in surveys:
        if found.schema is not None:
            yield repr(found.file.name), pa.schema([_plain(field) for field in found.schema])


def _plain(field: pa.Field) -> pa.Field:
    """A column without its file's encoding: nullable, no dictionary."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return pa.field(field.name, kind)


def _cut(surveys: Sequence[Survey], shard_rows: int) -> Iterator[Piece]:
    """Pieces that end where a file or a shard does."""
    room = shard_rows
    for found in surveys:
        first = 0
        while first < found.num_rows:
            count = min(room, found.num_rows - first)
            yield _piece(found, first, count)
            first += count
            room = room - count or shard_rows


def _piece(found: Survey, first: int, num_rows: int) -> Piece:
    if not found.marks:
        return Piece(file=found.file, first=first, num_rows=num_rows)
    offset, line = found.marks[first // STRIDE]
    return Piece(
        file=found.file,
        first=first,
        num_rows=num_rows,
        offset=offset,
        line=line,
        skip=first % STRIDE,
    )

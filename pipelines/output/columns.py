"""The output rows of a shard: the input's columns, and what became of each prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.requests.request import Result, TokenLogprob
from pipelines.errors import InvalidInput
from pipelines.inputs.rows import ID, RESERVED

_TOKEN = [("token", pa.int32()), ("logprob", pa.float64())]
LOGPROBS = pa.list_(pa.struct([*_TOKEN, ("top", pa.list_(pa.struct(_TOKEN)))]))


def output_schema(
    columns: pa.Schema, content: pa.Field, *, id_field: str, samples: int, logprobs: bool
) -> pa.Schema:
    """The columns of every output file; `content` is that of what was generated.

    The row's id comes first if the input has no column for it. `sample` is there if a row has
    several, `logprobs` if asked for.
    """
    own = [
        (content.name, content.type),
        ("tokens", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        *([("logprobs", LOGPROBS)] if logprobs else []),
        ("seed", pa.int64()),
        *([("sample", pa.int32())] if samples > 1 else []),
        ("accepted_length", pa.float64()),
        ("exactness", pa.string()),
        ("error", pa.string()),
        ("retryable", pa.bool_()),
    ]
    taken = [name for name, _ in own if name in columns.names]
    taken += [name for name in RESERVED if name in columns.names]
    if taken:
        raise InvalidInput(
            f"the input has a column {taken[0]!r}, which the output needs for itself: rename it"
        )
    identity = [] if id_field in columns.names else [pa.field(id_field, pa.string())]
    return pa.schema([*identity, *columns, *(pa.field(name, kind) for name, kind in own)])


def output_rows(
    rows: pa.Table,
    results: Sequence[Result],
    seeds: Sequence[int],
    contents: Mapping[str, list[Any]],
    *,
    schema: pa.Schema,
    id_field: str,
    samples: int,
) -> pa.Table:
    """The output of a shard: one row per result.

    `rows`: each result's input row. `contents`: what was generated, by its column's name.
    """
    failed = [result.finish_reason == "error" for result in results]
    own: dict[str, list[Any]] = {
        **contents,
        "tokens": [None if bad else r.tokens for bad, r in zip(failed, results, strict=True)],
        "finish_reason": [r.finish_reason for r in results],
        "logprobs": [_logprobs(r.logprobs) for r in results],
        "seed": list(seeds),
        "sample": [i % samples for i in range(len(results))],
        "accepted_length": [
            None if bad else r.accepted_length for bad, r in zip(failed, results, strict=True)
        ],
        "exactness": [None if bad else r.exactness for bad, r in zip(failed, results, strict=True)],
        "error": [_without_id(r) for r in results],
        "retryable": [r.retryable for r in results],
    }
    return pa.table([_column(field, rows, own, id_field) for field in schema], schema=schema)


def repeated(rows: pa.Table, samples: int) -> pa.Table:
    """Each row `samples` times, one after the other."""
    return rows.take(pa.array([i for i in range(rows.num_rows) for _ in range(samples)]))


def _column(field: pa.Field, rows: pa.Table, own: dict[str, list[Any]], id_field: str) -> Any:
    if field.name in rows.column_names:
        column = rows.column(field.name)
        if field.name != id_field or not pa.types.is_string(field.type):
            return column
        return pc.coalesce(column, rows.column(ID))
    if field.name in own:
        return pa.array(own[field.name], field.type)
    assert field.name == id_field
    return rows.column(ID)


def _logprobs(found: tuple[TokenLogprob, ...] | None) -> list[dict[str, Any]] | None:
    if found is None:
        return None
    return [
        {
            "token": item.token,
            "logprob": item.logprob,
            "top": [{"token": token, "logprob": value} for token, value in item.top],
        }
        for item in found
    ]


def _without_id(result: Result) -> str | None:
    """The error without the name of its request, which only the job knows."""
    return result.error and result.error.removeprefix(f"request {result.id!r}: ")

"""A shard's rows on their way to the target: which prompt, which id, or why there is none.

One Arrow table carries them: the input's columns, and these.

    __shard, __row   the shard's index, the row's place in it
    __id             the row's id as text: the id field's value, or "<file>:<row number>"
    __problem        why the row cannot be run; null if it can
    __prompt         the prompt's text (of an image: its class), then
    __tokens         its token ids, in place of the text
"""

import json
from collections.abc import Callable
from typing import Protocol

import pyarrow as pa

from pipelines.read import Rows

SHARD, ROW, ID, PROBLEM = "__shard", "__row", "__id", "__problem"
PROMPT, TOKENS = "__prompt", "__tokens"
RESERVED = (SHARD, ROW, ID, PROBLEM, PROMPT, TOKENS)


class Encoder(Protocol):
    """What turns texts into token ids."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...


def prompt_rows(
    rows: Rows, *, shard: int, prompt_field: str, read: Callable[[object, str], str]
) -> pa.Table:
    """The rows as the table above, up to their prompts' text.

    `read`: a field's value as text; raises ValueError with the reason if it is no prompt.
    """
    prompts: list[str | None] = []
    problems: list[str | None] = []
    for place, problem, value in zip(rows.places, rows.problems, rows.prompts, strict=True):
        if problem is None:
            prompt, reason = _read(read, value, prompt_field)
        else:
            prompt, reason = None, f"{place}: {problem}"
        prompts.append(prompt)
        problems.append(reason)
    ids = [row_id(value, place) for value, place in zip(rows.ids, rows.places, strict=True)]
    columns = {
        SHARD: pa.array([shard] * len(ids), pa.int32()),
        ROW: pa.array(range(len(ids)), pa.int32()),
        ID: pa.array(ids, pa.string()),
        PROBLEM: pa.array(problems, pa.string()),
        PROMPT: pa.array(prompts, pa.string()),
    }
    return _with(rows.columns, columns)


def _read(
    read: Callable[[object, str], str], value: object, field: str
) -> tuple[str | None, str | None]:
    """(the prompt, why there is none)."""
    try:
        return read(value, field), None
    except ValueError as error:
        return None, str(error)


def row_id(value: object, place: str) -> str:
    """The id that a row's seed depends on."""
    if value is None:
        return place
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def encoded(table: pa.Table, encoder: Encoder) -> pa.Table:
    """The table with token ids in the place of texts; null where there is a problem."""
    texts = table.column(PROMPT).to_pylist()
    tokens = iter(encoder.encode_batch([text for text in texts if text is not None]))
    lists = [None if text is None else next(tokens) for text in texts]
    return _with(table.drop_columns([PROMPT]), {TOKENS: pa.array(lists, pa.list_(pa.int32()))})


def _with(table: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    """The table with more columns; one without any columns has no number of rows of its own."""
    return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **columns})

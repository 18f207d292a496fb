"""A shard's rows on their way to the target: which prompt, which id, or why there is none.

One Arrow table carries them: the input's columns, and these.

    __shard, __row   the shard's index, the row's place in it
    __id             the row's id as text: the id field's value, or "<file>:<row number>"
    __problem        why the row cannot be run; null if it can
    __prompt         the prompt's text (of an image: its class), and
    __rendered       whether a chat template wrote it, with its special tokens; then
    __tokens         its token ids, in place of both
    __grammar        what its completion must follow; null: nothing
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipelines.inputs.formats import grammar_of_row
from pipelines.inputs.read import Rows

SHARD, ROW, ID, PROBLEM = "__shard", "__row", "__id", "__problem"
PROMPT, RENDERED, TOKENS = "__prompt", "__rendered", "__tokens"
GRAMMAR = "__grammar"
RESERVED = (SHARD, ROW, ID, PROBLEM, PROMPT, RENDERED, TOKENS, GRAMMAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptText:
    """What is encoded. `rendered`: a chat template wrote it, so no special tokens are added."""

    text: str
    rendered: bool = False


class Encoder(Protocol):
    """What turns texts into token ids."""

    def encode_batch(
        self, texts: list[str], *, add_special_tokens: bool = True
    ) -> list[list[int]]: ...


def prompt_rows(
    rows: Rows, *, shard: int, prompt_field: str, read: Callable[[object, str], PromptText]
) -> pa.Table:
    """The rows as the table above, up to their prompts' text.

    `read`: a field's value as text; raises ValueError with the reason if it is no prompt.
    """
    prompts: list[PromptText | None] = []
    problems: list[str | None] = []
    grammars: list[str | None] = []
    asked = zip(rows.places, rows.problems, rows.prompts, rows.formats, strict=True)
    for place, problem, value, form in asked:
        if problem is None:
            prompt, reason = _read(read, value, prompt_field)
            grammar, other = _grammar(form)
            reason = reason or other
        else:
            prompt, grammar, reason = None, None, f"{place}: {problem}"
        prompts.append(prompt)
        problems.append(reason)
        grammars.append(grammar)
    ids = [row_id(value, place) for value, place in zip(rows.ids, rows.places, strict=True)]
    columns = {
        SHARD: pa.array([shard] * len(ids), pa.int32()),
        ROW: pa.array(range(len(ids)), pa.int32()),
        ID: pa.array(ids, pa.string()),
        PROBLEM: pa.array(problems, pa.string()),
        PROMPT: pa.array([prompt and prompt.text for prompt in prompts], pa.string()),
        GRAMMAR: pa.array(grammars, pa.string()),
        RENDERED: pa.array([prompt and prompt.rendered for prompt in prompts], pa.bool_()),
    }
    return _with(rows.columns, columns)


def _read(
    read: Callable[[object, str], PromptText], value: object, field: str
) -> tuple[PromptText | None, str | None]:
    """(the prompt, why there is none)."""
    try:
        return read(value, field), None
    except ValueError as error:
        return None, str(error)


def _grammar(value: object) -> tuple[str | None, str | None]:
    """(the grammar, why there is none though one is asked for)."""
    try:
        return grammar_of_row(value), None
    except ValueError as error:
        return None, str(error)


def row_id(value: object, place: str) -> str:
    """The id that a row's seed depends on."""
    if value is None:
        return place
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def encoded(table: pa.Table, encoder: Encoder) -> pa.Table:
    """The table with token ids in the place of texts; null where there is a problem."""
    texts, kinds = table.column(PROMPT).to_pylist(), table.column(RENDERED).to_pylist()
    lists: list[list[int] | None] = [None] * len(texts)
    for rendered in {kind for kind in kinds if kind is not None}:
        places = [i for i, kind in enumerate(kinds) if kind is rendered]
        chosen = [texts[i] for i in places]
        tokens = encoder.encode_batch(chosen, add_special_tokens=not rendered)
        for i, ids in zip(places, tokens, strict=True):
            lists[i] = ids
    rest = table.drop_columns([PROMPT, RENDERED])
    return _with(rest, {TOKENS: pa.array(lists, pa.list_(pa.int32()))})


def _with(table: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    """The table with more columns; one without any columns has no number of rows of its own."""
    return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **columns})

"""The output rows of a shard: the input's columns, and what became of each prompt."""

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa

from models.request import Result, TokenLogprob
from pipelines.errors import InvalidInput
from pipelines.rows import ID, RESERVED, TOKENS

_TOKEN = [("token", pa.int32()), ("logprob", pa.float64())]
LOGPROBS = pa.list_(pa.struct([*_TOKEN, ("top", pa.list_(pa.struct(_TOKEN)))]))
CONTEXT = (
    8  # prompt tokens decoded before a completion, so that its first characters come out right
)


class Decoder(Protocol):
    """What turns token ids into texts, special tokens left out."""

    def decode_batch(self, tokens: list[list[int]]) -> list[str]: ...


def output_schema(columns: pa.Schema, *, id_field: str, samples: int, logprobs: bool) -> pa.Schema:
    """The columns of every output file.

    The row's id comes first if the input has no column for it. `sample` is there if a row has
    several, `logprobs` if asked for.
    """
    own = [
        ("completion", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        *([("logprobs", LOGPROBS)] if logprobs else []),
        ("seed", pa.int64()),
        *([("sample", pa.int32())] if samples > 1 else []),
        ("accepted_length", pa.float64()),
        ("exactness", pa.string()),
        ("error", pa.string()),
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
    *,
    schema: pa.Schema,
    id_field: str,
    samples: int,
    decoder: Decoder,
) -> pa.Table:
    """The output of a shard, `samples` rows for each input row.

    `results` and `seeds` hold a row's samples one after the other.
    """
    repeated = rows.take(pa.array([i for i in range(rows.num_rows) for _ in range(samples)]))
    prompts = repeated.column(TOKENS).to_pylist()
    failed = [result.finish_reason == "error" for result in results]
    own: dict[str, list[Any]] = {
        "completion": completions(prompts, results, decoder),
        "tokens": [None if bad else r.tokens for bad, r in zip(failed, results, strict=True)],
        "finish_reason": [r.finish_reason for r in results],
        "logprobs": [_logprobs(r.logprobs) for r in results],
        "seed": list(seeds),
        "sample": [i % samples for i in range(len(results))],
        "accepted_length": [
            None if bad else r.accepted_length for bad, r in zip(failed, results, strict=True)
        ],
        "exactness": [None if bad else r.exactness for bad, r in zip(failed, results, strict=True)],
        "error": [r.error for r in results],
    }
    return pa.table([_column(field, repeated, own, id_field) for field in schema], schema=schema)


def _column(field: pa.Field, rows: pa.Table, own: dict[str, list[Any]], id_field: str) -> Any:
    if field.name in rows.column_names:
        return rows.column(field.name)
    if field.name in own:
        return pa.array(own[field.name], field.type)
    assert field.name == id_field
    return rows.column(ID)


def completions(
    prompts: Sequence[list[int] | None], results: Sequence[Result], decoder: Decoder
) -> list[str | None]:
    """The generated texts, without the stop text that ended them; None for errors."""
    heads = [(prompt or [])[-CONTEXT:] for prompt in prompts]
    whole = [[*head, *result.tokens] for head, result in zip(heads, results, strict=True)]
    alone = [list(result.tokens) for result in results]
    texts = decoder.decode_batch([*whole, *heads, *alone, *(tokens[:-1] for tokens in whole)])
    count = len(results)
    groups = [texts[i * count : (i + 1) * count] for i in range(4)]
    return [
        None if result.finish_reason == "error" else completion(result.stop_text, *found)
        for result, *found in zip(results, *groups, strict=True)
    ]


def completion(stop: str | None, whole: str, head: str, alone: str, before: str) -> str:
    """The text that follows the prompt, up to the stop text that its last token completed.

    Args:
        whole: the text of the prompt's last tokens and the generated ones.
        head: of those of the prompt; alone: of the generated ones, which may lack a first space.
        before: `whole` without its last token.
    """
    offset = len(head) if whole.startswith(head) else len(whole) - len(alone)
    if stop is None:
        return whole[offset:] if whole.startswith(head) else alone
    start = max(offset, len(before.rstrip("\ufffd")) - len(stop) + 1)
    end = whole.find(stop, start)
    end = end if end >= 0 else whole.rfind(stop, max(offset, 0))
    return whole[offset : end if end >= 0 else None]


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

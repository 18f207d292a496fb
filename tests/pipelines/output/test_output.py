from typing import Any

import pyarrow as pa
import pytest

from models.requests.request import Result, TokenLogprob
from pipelines.errors import InvalidInput
from pipelines.generate.rows.writer import parquet_bytes
from pipelines.inputs.rows import ID, PROBLEM, ROW, SHARD, TOKENS
from pipelines.modality.texts import completion, completions
from pipelines.output.columns import output_rows, output_schema, repeated
from tests.pipelines.generate.inprocess import ByteTokenizer


class Spaced(ByteTokenizer):
    """Decodes as tokenizers do that mark words: the first space of a text is lost."""

    def decode_batch(self, tokens: list[list[int]]) -> list[str]:
        return [text.removeprefix(" ") for text in super().decode_batch(tokens)]


def result(text: str | bytes, **values: Any) -> Result:
    tokens = tuple(text.encode() if isinstance(text, str) else text)
    return Result(**{"id": "0", "tokens": tokens, "finish_reason": "stop", **values})


def one(prompt: str, text: str | bytes, tokenizer: ByteTokenizer, **values: Any) -> str | None:
    return completions([list(prompt.encode())], [result(text, **values)], tokenizer)[0]


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), Spaced()])
@pytest.mark.parametrize("prompt", ["x", "the quick brown fox", ""])
def test_a_completion_is_what_follows_the_prompt(tokenizer: ByteTokenizer, prompt: str) -> None:
    assert one(prompt, "jumps", tokenizer) == "jumps"
    expected = "over" if isinstance(tokenizer, Spaced) and not prompt else " over"
    assert one(prompt, " over", tokenizer) == expected


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one\n\n", "\n\n", "one"),
        ("one", "one", ""),
        ("a. b. c", " c", "a. b."),
        ("never", "absent", "never"),
        ("ab ab", "ab", "ab "),  # an earlier one was passed over: min_tokens
    ],
)
def test_the_stop_text_is_left_out(text: str, stop: str, expected: str) -> None:
    assert one("prompt ab", text, ByteTokenizer(), stop_text=stop) == expected


def test_the_first_stop_text_in_the_last_token_counts() -> None:
    found = completion("\n\n", "xab\n\n\n\n", "x", "ab\n\n\n\n", "xab")
    assert found == "ab"


def test_half_a_character_at_the_seam() -> None:
    prompt, rest = "é".encode()[:1], "é".encode()[1:] + b"!"
    text = completions([list(prompt)], [result(rest)], ByteTokenizer())[0]
    assert text == rest.decode(errors="replace")


def test_errors_have_no_completion() -> None:
    failed = result("", finish_reason="error", error="no")
    assert completions([None], [failed], ByteTokenizer()) == [None]


CONTENT = pa.field("completion", pa.string())


def rows(count: int) -> pa.Table:
    return pa.table(
        {
            "prompt": [f"p{i}" for i in range(count)],
            SHARD: [0] * count,
            ROW: list(range(count)),
            ID: [f"f:{i}" for i in range(count)],
            PROBLEM: pa.array([None] * count, pa.string()),
            TOKENS: [[112, 48 + i] for i in range(count)],
        }
    )


def test_columns_in_their_order() -> None:
    prompt = pa.schema([("prompt", pa.string())])
    schema = output_schema(prompt, CONTENT, id_field="id", samples=2, logprobs=True)
    names = "id prompt completion tokens finish_reason logprobs seed sample accepted_length"
    assert schema.names == [*names.split(), "exactness", "error", "retryable"]
    plain = output_schema(prompt, CONTENT, id_field="prompt", samples=1, logprobs=False)
    names = "prompt completion tokens finish_reason seed accepted_length exactness error retryable"
    assert plain.names == names.split()
    logprob = TokenLogprob(token=97, logprob=-0.5, top=((97, -0.5), (98, -1.5)))
    results = [result("a", id=str(i), logprobs=(logprob,)) for i in range(4)]
    table = output_rows(
        repeated(rows(2), 2),
        results,
        [1, 2, 3, 2**63 - 1],
        {"completion": ["a", "b", "c", "d"]},
        schema=schema,
        id_field="id",
        samples=2,
    )
    assert table.schema == schema
    first, *_, last = table.to_pylist()
    assert first["id"] == "f:0"
    assert (last["id"], last["sample"], last["seed"]) == ("f:1", 1, 2**63 - 1)
    assert (first["completion"], last["completion"]) == ("a", "d")
    top = [{"token": 97, "logprob": -0.5}, {"token": 98, "logprob": -1.5}]
    assert first["logprobs"] == [{"token": 97, "logprob": -0.5, "top": top}]
    assert parquet_bytes(table) == parquet_bytes(table)


def test_columns_that_the_output_needs_are_refused() -> None:
    for name in ("completion", "tokens", "error", "__row"):
        schema = pa.schema([(name, pa.string())])
        with pytest.raises(InvalidInput, match=f"already|column '{name}'"):
            output_schema(schema, CONTENT, id_field="id", samples=1, logprobs=True)
    sample = pa.schema([("sample", pa.int32())])
    output_schema(sample, CONTENT, id_field="id", samples=1, logprobs=False)
    with pytest.raises(InvalidInput, match="'sample'"):
        output_schema(sample, CONTENT, id_field="id", samples=2, logprobs=False)

"""Rows of `messages`: the prompts that transformers makes of them, or the reason why not."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from models.engine import EngineConfig, build_loop
from models.errors import UnsupportedCheckpoint
from models.requests.request import Sampling
from pipelines.errors import InvalidInput
from pipelines.generate.config import GenerateConfig
from pipelines.generate.fingerprint import checkpoint_digest
from pipelines.generate.prepare import prepare
from pipelines.generate.rows.prompts import read_prompts, requests
from pipelines.inputs.rows import ID, PROBLEM, TOKENS
from pipelines.modality.chat import messages_of, prompt_column
from tests.actors.chat_checkpoints import CHAT, CHATML, VOCABULARY, save_tokenizer
from tests.pipelines.generate.inprocess import make_config, output_rows, run_job, tables

CHATS = [CHAT, CHAT[:1], [{"role": "system", "content": "Be brief."}, CHAT[0]]]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A checkpoint with a chat template, without a model."""
    return save_tokenizer(tmp_path / "target", chat_template=CHATML)


def config_of(tmp_path: Path, source: Path, **values: Any) -> GenerateConfig:
    return make_config(tmp_path, input=str(source), output=str(tmp_path / "out"), **values)


def encoded_rows(config: GenerateConfig) -> list[dict[str, Any]]:
    job = prepare(config)
    codec = job.layout.modality.codec()
    return [row for table in tables(job, codec) for row in table.to_pylist()]


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_lines(tmp_path: Path) -> Path:
    rows = [{"id": i, "messages": chat} for i, chat in enumerate(CHATS)]
    return write_lines(tmp_path / "chats.jsonl", *rows)


def as_parquet(tmp_path: Path) -> Path:
    """As chat data sets have it: list<struct>, with a field that most messages lack."""
    kind = pa.list_(pa.struct([(n, pa.string()) for n in ("role", "content", "name")]))
    columns = {"id": pa.array(range(len(CHATS))), "messages": pa.array(CHATS, kind)}
    pq.write_table(pa.table(columns), tmp_path / "chats.parquet")
    return tmp_path / "chats.parquet"


@pytest.mark.parametrize("write", [as_lines, as_parquet])
def test_chats_have_the_token_ids_of_transformers(tmp_path, target, write):
    rows = encoded_rows(config_of(tmp_path, write(tmp_path)))
    tokenizer = AutoTokenizer.from_pretrained(target)
    made = [tokenizer.apply_chat_template(c, add_generation_prompt=True) for c in CHATS]
    assert [row[TOKENS] for row in rows] == [ids["input_ids"] for ids in made]
    assert [row[ID] for row in rows] == ["0", "1", "2"]


def test_texts_and_chats_may_stand_in_one_column(tmp_path, target):
    source = write_lines(tmp_path / "a.jsonl", {"ask": "Hello"}, {"ask": CHAT}, {"ask": "Bye"})
    first, chat, last = encoded_rows(config_of(tmp_path, source, prompt_field="ask"))
    bos, im_start = 0, 2
    assert [row[TOKENS][0] for row in (first, chat, last)] == [bos, im_start, bos]
    assert bos not in chat[TOKENS]


def test_a_bad_chat_is_an_error_row(tmp_path, target):
    bad = [{"messages": "Hello"}, {"messages": [*CHAT, {"role": "user"}]}, {"id": "none"}]
    source = write_lines(tmp_path / "a.jsonl", {"messages": CHAT}, *bad)
    rows = encoded_rows(config_of(tmp_path, source))
    assert [row[PROBLEM] for row in rows] == [
        None,
        "field 'messages' is str 'Hello', not a list of messages",
        "messages[3].content is missing",
        "field 'messages' is missing",
    ]
    assert [row[TOKENS] is None for row in rows] == [False, True, True, True]


def test_output_rows_keep_their_messages(tmp_path, target):
    config = config_of(tmp_path, as_parquet(tmp_path))
    run_job(config)
    rows = output_rows(config.output)
    assert [[m["content"] for m in row["messages"]] for row in rows] == [
        [m["content"] for m in chat] for chat in CHATS
    ]
    assert all(row["completion"] for row in rows)


@pytest.mark.parametrize("values", [{}, {"prompt_field": "talk"}])
def test_chats_without_a_template_are_refused_before_anything_is_written(tmp_path, values):
    save_tokenizer(tmp_path / "target")
    source = write_lines(tmp_path / "a.jsonl", {values.get("prompt_field", "messages"): CHAT})
    with pytest.raises(UnsupportedCheckpoint, match=r"target' has no chat template"):
        prepare(config_of(tmp_path, source, **values))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "columns", "found"),
    [
        (None, ["id", "prompt", "messages"], "prompt"),
        (None, ["id", "messages"], "messages"),
        (None, [], "prompt"),
        ("messages", ["prompt", "messages"], "messages"),
    ],
)
def test_the_prompt_is_the_first_known_column(asked, columns, found):
    assert prompt_column(asked, columns) == found


@pytest.mark.parametrize("asked", [None, "prompt"])
def test_a_missing_column_is_never_replaced_silently(asked):
    columns = ["id", "text"] if asked is None else ["id", "messages"]
    with pytest.raises(InvalidInput, match="prompt_field='prompt': the input has no such column"):
        prompt_column(asked, columns)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "field 'm' is an empty list"),
        ({"role": "user"}, "field 'm' is dict .*, not a list of messages"),
        (["Hello"], r"m\[0\] is str 'Hello', not an object with role and content"),
        ([{"content": "Hello"}], r"m\[0\].role is missing"),
        ([{"role": "", "content": "Hello"}], r"m\[0\].role is empty"),
        (
            [{"role": "user", "content": [{"text": "Hello"}]}],
            r"m\[0\].content is list .*, not text",
        ),
        (CHAT[:2], r"m\[1\]: the last message is the assistant's"),
    ],
)
def test_what_is_no_chat_is_named(value, told):
    with pytest.raises(ValueError, match=told):
        messages_of(value, "m")


def test_further_keys_go_to_the_template_unless_null():
    message = {"role": "user", "content": "Hello", "name": "Ada", "tool_calls": None}
    assert messages_of([message], "m") == [{"role": "user", "content": "Hello", "name": "Ada"}]


def test_the_template_is_part_of_the_job(target):
    (target / "config.json").write_text("{}")
    before = checkpoint_digest(str(target))
    (target / "chat_template.jinja").write_text(CHATML)
    assert checkpoint_digest(str(target)) != before


def test_the_end_of_turn_token_ends_an_answer(tmp_path, target):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "initializer_range": 0.3}
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads)).save_pretrained(target)
    prompts = read_prompts(str(as_lines(tmp_path)), checkpoint=str(target), count=1)
    asked = requests(prompts, Sampling(max_tokens=6, temperature=0.0), seed=0)
    (before,) = build_loop(EngineConfig(target=str(target))).run(asked)
    ends = [VOCABULARY - 1, before.tokens[2]]
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    (result,) = build_loop(EngineConfig(target=str(target))).run(asked)
    assert result.finish_reason == "stop"
    assert result.tokens == before.tokens[: before.tokens.index(ends[1]) + 1]

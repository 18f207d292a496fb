"""Rows with `response_format`: valid completions, those that a server gives, and error rows."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.engine import build_loop
from models.requests.request import Request, Result
from pipelines.inputs.formats import grammar_of_row
from tests.pipelines.generate.inprocess import InProcessPool, make_config, output_rows, run_job
from tests.pipelines.serve.conftest import demo, demo_config, demo_target, demo_url
from tests.pipelines.serve.test_constrained import FORMAT, SCHEMA

__all__ = ["demo", "demo_target", "demo_url"]
GOOD: list[Any] = [FORMAT, {"type": "json_object"}, {"type": "text"}, None, json.dumps(FORMAT)]
BAD: list[Any] = ["{", "[1]", {"type": "xml"}, {"type": "json_schema"}, {"type": "text", "a": 1}, 3]


class LoopPool:
    """The real loop as a job's pool."""

    def __init__(self, target: str) -> None:
        self._loop = build_loop(demo_config(target, "lookup"))

    def free_slots(self) -> int:
        return 8 - self._loop.num_unfinished

    def submit(self, requests: list[Request]) -> None:
        for request in requests:
            self._loop.submit(request)

    def take(self, timeout_s: float) -> list[Result]:
        import torch

        with torch.inference_mode():
            return self._loop.step()


def test_rows_are_valid_and_a_server_gives_the_same(
    tmp_path: Path, demo_target: str, demo: openai.OpenAI
) -> None:
    from actors.tokenizer import TokenizerActor

    rows = [{"prompt": f"Number {i}: ", "response_format": form} for i, form in enumerate(GOOD)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"input": str(tmp_path / "in.jsonl"), "output": str(tmp_path / "out")}
    config = make_config(tmp_path, **given | {"target": demo_target, "max_tokens": 60})
    run_job(config, pool=LoopPool(demo_target), codec=TokenizerActor(demo_target))
    made = output_rows(str(tmp_path / "out"))
    for row, form in zip(made, GOOD, strict=True):
        asked = {"response_format": json.loads(form) if isinstance(form, str) else form}
        told = demo.completions.create(
            model="demo", prompt=row["prompt"], seed=row["seed"], max_tokens=60, extra_body=asked
        )
        assert (told.choices[0].text, told.choices[0].finish_reason) == (
            row["completion"],
            row["finish_reason"],
        )
    for row in (made[0], made[4]):
        assert row["finish_reason"] == "stop"
        jsonschema.validate(json.loads(row["completion"]), SCHEMA)


def test_rows_with_bad_formats_are_error_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response_format": form} for form in [*BAD, None]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"input": str(tmp_path / "in.jsonl"), "output": str(tmp_path / "out")}
    run_job(make_config(tmp_path, **given))
    made = output_rows(str(tmp_path / "out"))
    assert [row["finish_reason"] for row in made] == ["error"] * len(BAD) + ["length"]
    assert all("response_format" in row["error"] for row in made[:-1])


def test_a_grammar_that_does_not_go_with_the_job_is_an_error_row(tmp_path: Path) -> None:
    row = {"prompt": "a", "response_format": {"type": "json_object"}}
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    given = {"input": str(tmp_path / "in.jsonl"), "output": str(tmp_path / "out")}
    run_job(make_config(tmp_path, ignore_eos=True, **given), pool=InProcessPool())
    (made,) = output_rows(str(tmp_path / "out"))
    assert "ignore_eos" in made["error"]


def test_formats_of_parquet_have_no_nulls(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a", "b"], "response_format": [FORMAT, {"type": "text"}]})
    pq.write_table(table, tmp_path / "in.parquet")
    first, second = pq.read_table(tmp_path / "in.parquet").column("response_format").to_pylist()
    assert second["json_schema"] is None
    assert grammar_of_row(second) is None
    assert grammar_of_row(first) == grammar_of_row(FORMAT)


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_format_is_told(value: Any) -> None:
    with pytest.raises(ValueError, match="response_format"):
        grammar_of_row(value)

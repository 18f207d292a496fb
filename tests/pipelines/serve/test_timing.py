"""`trace_events`: where the time of an answer went."""

from typing import Any

import openai
import pytest

ASKED: dict[str, Any] = {"model": "demo", "prompt": "Once", "max_tokens": 8, "seed": 1}
TRACED = {"paceline": {"trace_events": True}}


def told(events: dict[str, Any]) -> list[str]:
    return [e["name"] for e in events["traceEvents"] if e["ph"] == "X"]


def processes(events: dict[str, Any]) -> set[str]:
    return {e["args"]["name"] for e in events["traceEvents"] if e["name"] == "process_name"}


@pytest.mark.parametrize("n", [1, 2])
def test_a_whole_answer_says_where_its_time_went(demo: openai.OpenAI, n: int) -> None:
    plain = demo.completions.create(**ASKED, n=n)
    made = demo.completions.create(**ASKED, n=n, extra_body=TRACED)
    assert [c.text for c in made.choices] == [c.text for c in plain.choices]
    events = made.model_dump()["paceline"]["trace_events"]
    names = told(events)
    assert names[:2] == ["answer", "encode"]
    assert names.count("waiting") == n
    assert names.count("round") >= n
    assert "ingress" in processes(events)
    assert "trace_events" not in plain.model_dump()["paceline"]


def test_the_last_chunk_of_a_stream_says_it(demo: openai.OpenAI) -> None:
    *chunks, last = demo.completions.create(**ASKED, stream=True, extra_body=TRACED)
    assert "round" in told(last.model_dump()["paceline"]["trace_events"])
    assert last.choices == []
    assert all(chunk.choices for chunk in chunks)

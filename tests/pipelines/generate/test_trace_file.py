"""`--trace`: which requests are traced, and the file that Perfetto shows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import InvalidOption
from models.requests.request import Request, Result
from models.requests.spans import Span
from pipelines.generate.fingerprint import fingerprint
from pipelines.generate.prepare import prepare
from tests.pipelines.generate.inprocess import (
    InProcessPool,
    make_config,
    run_job,
    write_prompts,
)


class TracingPool(InProcessPool):
    """Requests that ask for it have a span of each of two actors."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def submit(self, requests: list[Request]) -> None:
        self.asked += [request.id for request in requests if request.trace]
        super().submit(requests)

    def take(self, timeout_s: float) -> list[Result]:
        spans = tuple(
            Span(name="round", where=name, began_us=5, took_us=2, facts={"tokens": 1})
            for name in ("target-0", "draft-0")
        )
        results = super().take(timeout_s)
        return [replace(r, spans=spans) if r.id in self.asked else r for r in results]


def run(folder: Path, **options: object) -> tuple[TracingPool, dict[str, object]]:
    """The pool after a job of 40 rows, and what its trace says."""
    source, pool = write_prompts(folder / "in" / "prompts.jsonl", 40), TracingPool()
    file = folder / "trace.json"
    values = {"input": str(source), "output": str(folder / "out"), "trace": str(file), **options}
    run_job(make_config(folder, **values), pool=pool)
    return pool, json.loads(file.read_text())


def named(trace: dict, what: str) -> set[str]:
    return {e["args"]["name"] for e in trace["traceEvents"] if e["name"] == what}


def test_the_first_requests_are_traced(tmp_path):
    pool, trace = run(tmp_path, shard_rows=8)
    assert len(pool.asked) == len(named(trace, "thread_name")) == 32
    assert named(trace, "process_name") == {"driver", "target-0", "draft-0"}
    assert "row 0, sample 0" in named(trace, "thread_name")


def test_rows_are_chosen_by_their_ids_with_all_their_samples(tmp_path):
    pool, trace = run(tmp_path, n=2, trace_ids=("7", "39", "none"))
    assert len(pool.asked) == 4
    rows = {f"row {row}, sample {sample}" for row in (7, 39) for sample in (0, 1)}
    assert named(trace, "thread_name") == rows


def test_spans_become_events_in_microseconds(tmp_path):
    _, trace = run(tmp_path, trace_ids=("7",))
    processes = {
        e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"
    }
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert [(processes[e["pid"]], e["name"]) for e in events] == [
        ("driver", "request"),
        ("target-0", "round"),
        ("draft-0", "round"),
    ]
    assert (events[1]["ts"], events[1]["dur"], events[1]["args"]) == (5, 2, {"tokens": 1})
    assert events[0]["dur"] > 0
    assert events[0]["args"]["end"] == "length"


def test_a_job_that_stops_leaves_its_trace(tmp_path):
    class Stops(TracingPool):
        def take(self, timeout_s: float) -> list[Result]:
            if results := super().take(timeout_s):
                return results
            raise RuntimeError("stop")

    source = write_prompts(tmp_path / "in" / "prompts.jsonl", 40)
    file = tmp_path / "trace.json"
    values = {"input": str(source), "output": str(tmp_path / "out"), "trace": str(file)}
    with pytest.raises(RuntimeError, match="stop"):
        run_job(make_config(tmp_path, **values), pool=Stops())
    assert "traceEvents" in json.loads(file.read_text())


def test_a_trace_that_cannot_be_written_any_more_stops_no_job(tmp_path, caplog):
    class InTheWay(TracingPool):
        def take(self, timeout_s: float) -> list[Result]:
            (tmp_path / "traces").touch()
            return super().take(timeout_s)

    source = write_prompts(tmp_path / "in" / "prompts.jsonl", 3)
    values = {"input": str(source), "output": str(tmp_path / "out")}
    config = make_config(tmp_path, **values, trace=str(tmp_path / "traces" / "t.json"))
    manifest = run_job(config, pool=InTheWay())
    assert sum(entry.rows for entry in manifest.settled) == 3
    assert "the trace was not written" in caplog.text


def test_rows_that_are_not_there_are_told(tmp_path, caplog):
    run(tmp_path, trace_ids=("7", "none"))
    assert "the trace lacks the rows none" in caplog.text


@pytest.mark.parametrize("option", ["trace", "summary"])
@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("in/t.json", "outside of the input"),
        ("folder", "not a folder's"),
        ("file/t.json", "a file that can be written; cannot write .*/file/t.json: Not a dir"),
        ("/proc/dir/t.json", "a file that can be written; cannot write /proc/dir/t.json: No such"),
    ],
)
def test_files_that_would_do_harm_are_refused(tmp_path, option, place, told):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    write_prompts(tmp_path / "in" / "prompts.jsonl", 3)
    values = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    with pytest.raises(InvalidOption, match=told):
        prepare(make_config(tmp_path, **values, **{option: str(tmp_path / place)}))
    assert not (tmp_path / "out").exists()


def test_a_trace_decides_no_row(tmp_path):
    source = write_prompts(tmp_path / "in" / "prompts.jsonl", 3)
    values = {"input": str(source), "output": str(tmp_path / "out")}
    jobs = [
        prepare(make_config(tmp_path, **values, **options))
        for options in ({}, {"trace": str(tmp_path / "t.json"), "trace_ids": ("1",)})
    ]
    first, second = (fingerprint(job.config, job.plan) for job in jobs)
    assert first == second


def test_ids_without_a_trace_are_refused(tmp_path):
    with pytest.raises(InvalidOption, match="none without --trace"):
        make_config(tmp_path, input="in", output="out", trace_ids=("1",))

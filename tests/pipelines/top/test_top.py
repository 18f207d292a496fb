"""The views of a server and of a job."""

import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.messages import Measured, PoolState
from actors.tally import Counts
from models.loop.figures import Figures
from pipelines.cli import main
from pipelines.serve.metrics import exposition
from pipelines.top.job import JobFolder, job_lines
from pipelines.top.server import lines, sample
from tests.pipelines.generate.inprocess import make_config, run_job, write_prompts

METRICS = """\
# TYPE paceline_num_requests_running gauge
paceline_num_requests_running{model_name="m"} 3
# TYPE paceline_num_requests_waiting gauge
paceline_num_requests_waiting{model_name="m"} 2
# TYPE paceline_kv_cache_usage_perc gauge
paceline_kv_cache_usage_perc{model_name="m"} 0.25
# TYPE paceline_target_actors gauge
paceline_target_actors{model_name="m"} 2
# TYPE paceline_generation_tokens_total counter
paceline_generation_tokens_total{model_name="m"} TOKENS
# TYPE paceline_request_success_total counter
paceline_request_success_total{model_name="m",finished_reason="stop"} 4
paceline_request_success_total{model_name="m",finished_reason="length"} 1
# TYPE paceline_spec_decode_num_drafts_total counter
paceline_spec_decode_num_drafts_total{model_name="m"} 10
# TYPE paceline_spec_decode_num_draft_tokens_total counter
paceline_spec_decode_num_draft_tokens_total{model_name="m"} 40
# TYPE paceline_spec_decode_num_accepted_tokens_total counter
paceline_spec_decode_num_accepted_tokens_total{model_name="m"} 30
"""


def text(tokens: int) -> str:
    return METRICS.replace("TOKENS", str(tokens))


def test_a_servers_view():
    shown = "\n".join(lines(sample(text(500), 12.0), sample(text(300), 10.0)))
    for part in (
        "2 target, 0 draft",
        "3 completions, 2 wait",
        "100.0/s generated",
        "75% of tokens accepted, 4.00 tokens a round",
        "[#####...............] 25% in use",
        "5 well, 0 without an answer",
    ):
        assert part in shown


def test_several_models_have_a_share_of_their_own_cache_each():
    both = text(500).replace("0.25", "0.6")
    other = both.replace('"m"', '"two"').replace(" 500", " 300")
    whole = "".join(line for line in other.splitlines(True) if not line.startswith("#"))
    shown = list(lines(sample(both + whole, 12.0), sample(both, 10.0)))
    assert "4 target, 0 draft" in shown[0]
    assert [line for line in shown if "in use" in line] == [
        "m    [############........] 60% in use, 0 gave way; 3 running, 2 wait; 0.0/s generated",
        "two  [############........] 60% in use, 0 gave way; 3 running, 2 wait; 150.0/s generated",
    ]


def test_deaths_are_told_by_role_and_time():
    pool = PoolState(
        figures=Figures(),
        target_actors=1,
        draft_actors=1,
        draft_deaths=2,
        draft_died=1_700_000_000.5,
    )
    pools = {"a": pool, "b": replace(pool, draft_died=1_700_000_100.0)}
    found = {
        name: Measured(counts=Counts(), pool=each, loads=(), queued=0)
        for name, each in pools.items()
    }
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_700_000_100))
    assert list(lines(sample(exposition(found), 1.0), None))[1] == (
        f"deaths     0 target actors, 4 draft actors (last at {when})"
    )


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ok = self.headers.get("Authorization") == "Bearer key"
            self.send_response(200 if ok else 401)
            self.end_headers()
            self.wfile.write(text(500).encode() if ok else b"")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()


def test_a_server_is_asked_with_the_key(server, capsys, monkeypatch):
    assert main(["top", server, "--once"]) == 2
    assert "set PACELINE_API_KEY to one of its keys" in capsys.readouterr().err
    monkeypatch.setenv("PACELINE_API_KEY", "key")
    assert main(["top", server, "--once"]) == 0
    assert "500 generated" in capsys.readouterr().out


def test_a_jobs_view(tmp_path: Path, capsys):
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 11)
    config = make_config(
        tmp_path, input=str(prompts), output=str(tmp_path / "out"), shard_rows=4, n=2
    )
    run_job(config)
    job = JobFolder(config.output)
    state = job.state(at=1.0)
    assert (state.rows, state.total, state.shards, state.is_done) == (22, 22, 3, True)
    (entry,) = (tmp_path / "out" / "_manifest").glob("00001.json")
    entry.unlink()
    earlier = JobFolder(config.output).state(at=0.0)
    assert not earlier.is_done
    shown = "\n".join(job_lines(state, earlier))
    assert "22 of 22 committed (100%), 0 failed" in shown
    assert "/s, 0 s left)" in shown
    assert main(["top", config.output, "--once"]) == 0
    assert "14 of 22 committed (64%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "told"),
    [("http://127.0.0.1:9", "no server of ours answers there"), (".", "is needed")],
)
def test_what_cannot_be_shown_is_refused(what, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["top", what]) == 2
    message = capsys.readouterr().err
    assert message.startswith("paceline: URL|FOLDER=")
    assert told in message

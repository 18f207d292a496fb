"""Generate jobs on Ray, with real actors and a tiny model."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import paceline
from models.engine import build_loop
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import Request
from pipelines.errors import InvalidInput, JobFailed
from pipelines.generate import in_driver
from pipelines.generate.config import GenerateConfig
from pipelines.generate.job import generate, run
from pipelines.generate.prepare import prepare
from pipelines.generate.reporting.summary import Summary
from pipelines.inputs.seeds import row_seed
from pipelines.options import from_mapping
from tests.pipelines.generate.inprocess import outcome, write_prompts

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster", "as_if_large")]

Make = Callable[..., GenerateConfig]


def settings(target: str, source: str, folder: Path, /, **values: Any) -> GenerateConfig:
    fixed: dict[str, Any] = {
        "target": target,
        "input": source,
        "output": str(folder / "out"),
        "max_tokens": 24,
        "shard_rows": 5,
        "batch_size": 4,
        "seed": 5,
        "progress": False,
        "threads": 1,
    }
    return from_mapping(GenerateConfig, {**fixed, **values})


@pytest.fixture(scope="module")
def as_if_large() -> Iterator[None]:
    """Inputs are read, encoded and written by Ray's processes, however small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_driver, "SMALL_BYTES", 0)
        yield


@pytest.fixture
def make(tmp_path: Path, checkpoints: dict[str, str], prompts: str) -> Make:
    """A configuration."""
    return partial(settings, checkpoints["target"], prompts, tmp_path)


@pytest.fixture(scope="module")
def finished(
    ray_cluster: None,
    as_if_large: None,
    checkpoints: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[GenerateConfig, Summary]:
    """A job that has ended."""
    folder = tmp_path_factory.mktemp("finished")
    source = str(write_prompts(folder / "in" / "prompts.jsonl", 23))
    told = {"summary": str(folder / "summary.json"), "logprobs": 2}
    config = settings(checkpoints["target"], source, folder, **told)
    return config, generate(config)


def test_a_small_job_writes_the_same_rows(
    make: Make, finished: tuple[GenerateConfig, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_driver, "SMALL_BYTES", 2**20)
    config = make(logprobs=2)
    generate(config)
    assert outcome(config.output) == outcome(finished[0].output)


def plain(config: GenerateConfig, count: int) -> list[list[int]]:
    """The tokens by the bare token loop in this process."""
    requests = [
        Request(
            id=str(i),
            prompt=tuple(alphabet_ids(f"prompt number {i}")),
            sampling=config.sampling(),
            seed=row_seed(config.seed, str(i), 0),
        )
        for i in range(count)
    ]
    engine = replace(config.engine(), batch_size=32)  # the batch changes no token
    results = {result.id: result for result in build_loop(engine).run(requests)}
    return [list(results[str(i)].tokens) for i in range(count)]


def alphabet_ids(text: str) -> list[int]:
    from tokenizers import pre_tokenizers

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    encoded = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
        text
    )
    return [symbols.index(symbol) for piece, _ in encoded for symbol in piece]


def test_rows_are_those_of_the_bare_loop(finished: tuple[GenerateConfig, Summary]) -> None:
    config, summary = finished
    assert config.summary
    rows = outcome(config.output)
    assert [row["tokens"] for row in rows] == plain(config, 23)
    assert [row["id"] for row in rows] == list(range(23))
    assert all(len(row["logprobs"]) == len(row["tokens"]) for row in rows)
    assert {row["exactness"] for row in rows} == {"identical"}
    written = json.loads(Path(config.summary).read_text())
    assert written == json.loads(json.dumps(summary.as_dict()))
    assert (summary.rows, summary.rows_failed, summary.rows_resumed) == (23, 0, 0)
    assert summary.tokens == sum(len(row["tokens"]) for row in rows)
    assert summary.prompt_tokens == sum(len(row["prompt"]) for row in rows)
    assert summary.target_passes > 0
    assert summary.tokens_per_second == pytest.approx(summary.tokens / summary.seconds)
    assert set(summary.versions) == {"python", "paceline", "ray", "torch", "transformers"}
    assert summary.config["max_tokens"] == 24
    assert set(summary.round_ms) == {"round", "draft", "transfer", "score", "verify", "other"}


@pytest.mark.parametrize(
    ("drafter", "values"),
    [
        ("lookup", {}),
        ("draft", {"draft_tokens": 3, "draft_width": 1, "target_actors": 2}),
        ("draft", {"draft_tokens": 3, "draft_actors": 1, "batch_size": 2}),
    ],
)
def test_no_drafter_and_no_pool_changes_a_row(
    make: Make, checkpoints: dict[str, str], drafter: str, values: dict[str, Any]
) -> None:
    config = make(drafter=checkpoints.get(drafter, drafter), temperature=0.8, **values)
    summary = generate(config)
    rows = outcome(config.output)
    sizes = {"draft_tokens": "auto", "draft_width": "auto"}
    undrafted = replace(config, drafter="none", draft_actors=0, **sizes)
    assert [row["tokens"] for row in rows] == plain(undrafted, 23)
    assert summary.exactness == "identical"
    if drafter == "draft" and not config.draft_actors:  # drafts from elsewhere may come late
        assert summary.draft_passes > 0
        assert summary.accepted_length > 1


def test_error_rows_and_the_python_names(make: Make, tmp_path: Path) -> None:
    path = write_prompts(tmp_path / "more" / "prompts.jsonl", 3)
    lines = ['{"id": 3, "prompt": ""}', "{", json.dumps({"id": 5, "prompt": "long " * 80})]
    path.write_text(path.read_text() + "\n".join(lines))
    config = make(input=str(path))
    summary = paceline.generate(
        target=config.target,
        input=str(path),
        output=config.output,
        max_tokens=8,
        threads=1,
        progress=False,
    )
    rows = outcome(config.output)
    assert (summary.rows, summary.rows_failed) == (6, 3)
    assert [row["finish_reason"] == "error" for row in rows] == [False] * 3 + [True] * 3
    assert rows[3]["error"] == "field 'prompt' is empty"
    assert rows[4]["error"].startswith("prompts.jsonl:5: not JSON")
    assert "256" in rows[5]["error"]
    assert [row["id"] for row in rows[3:]] == ["3", "prompts.jsonl:5", "5"]


def test_a_finished_job_does_nothing_again(
    finished: tuple[GenerateConfig, Summary], tmp_path: Path
) -> None:
    config = replace(finished[0], summary=str(tmp_path / "again.json"))
    began = time.monotonic()
    summary = generate(config)
    assert time.monotonic() - began < 2
    assert (summary.rows, summary.rows_resumed, summary.run_rows) == (23, 23, 0)
    assert (summary.run_tokens, summary.run_seconds, summary.run_tokens_per_second) == (0, 0, 0)
    of_this_run = [name for name in summary.as_dict() if name.startswith("run_")]
    others = {"rows_resumed", "config", *of_this_run}
    assert _without(summary.as_dict(), others) == _without(finished[1].as_dict(), others)
    assert "nothing was left to do" in "\n".join(summary.lines())


def _without(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def test_a_resumed_run_tells_its_own_speed(make: Make) -> None:
    config = make()
    first = generate(config)
    for name in ("_manifest/00001.json", "part-00003.parquet"):
        (Path(config.output) / name).unlink()
    summary = generate(config)
    assert (summary.rows, summary.rows_resumed, summary.run_rows) == (23, 13, 10)
    assert summary.tokens == first.tokens
    rows = outcome(config.output)
    assert summary.run_tokens == sum(len(row["tokens"]) for row in rows[5:10] + rows[15:20])
    assert summary.run_tokens_per_second == summary.run_tokens / summary.run_seconds
    assert summary.seconds > summary.run_seconds > 0
    assert summary.runs == 2
    assert summary.target_passes > first.target_passes


def test_every_sample_is_that_of_a_request_of_its_own(make: Make) -> None:
    config = make(n=3, temperature=0.9)
    generate(config)
    rows = outcome(config.output)
    assert [(row["id"], row["sample"]) for row in rows] == [
        (i, sample) for i in range(23) for sample in range(3)
    ]
    loop = build_loop(replace(config.engine(), batch_size=1))
    for row in rows[::7]:  # some of each sample
        seed = row_seed(config.seed, str(row["id"]), row["sample"])
        prompt = tuple(alphabet_ids(row["prompt"]))
        asked = Request(id="alone", prompt=prompt, sampling=config.sampling(), seed=seed)
        (alone,) = loop.run([asked])
        assert row["seed"] == seed
        assert row["tokens"] == list(alone.tokens)


def test_killed_actors_cost_time_only(make: Make, tmp_path: Path) -> None:
    """A target actor after the first shard, the writer after the third."""
    prompts = str(write_prompts(tmp_path / "many" / "prompts.jsonl", 60))
    config = make(input=prompts, max_tokens=100, target_actors=2, batch_size=2)
    killed: set[str] = set()
    done = threading.Event()

    def kill_both() -> None:
        for name, written in (("TargetActor", 1), ("WriterActor", 3)):
            while name not in killed and not done.wait(0.05):
                if len(list(Path(config.output).glob("part-*.parquet"))) >= written:
                    killed.update(kill_a(name))

    thread = threading.Thread(target=kill_both)
    thread.start()
    summary = generate(config)
    done.set()
    thread.join()
    assert killed == {"TargetActor", "WriterActor"}
    assert summary.rows_failed == 0
    rows = outcome(config.output)
    assert [row["tokens"] for row in rows] == plain(config, 60)


def test_what_goes_wrong_in_an_actor_is_told_in_one_line(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=r"no tokenizer|config\.json"):
        generate(make(target=str(tmp_path)))
    with pytest.raises(InvalidOption, match="max_length=9999"):
        generate(make(max_length=9999))
    with pytest.raises(InvalidOption, match="a file's name is needed"):
        generate(make(summary=str(tmp_path)))


def test_an_input_that_changes_meanwhile_stops_the_job(make: Make, prompts: str) -> None:
    job = prepare(make())
    Path(prompts).write_text("")
    with pytest.raises(InvalidInput, match="has changed while the job runs"):
        run(job, began=time.monotonic())


def test_an_output_that_becomes_unwritable_stops_the_job(make: Make, tmp_path: Path) -> None:
    job = prepare(make())
    (tmp_path / "out").rename(tmp_path / "gone")
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(JobFailed, match=r"cannot write .* 0 of 5 shards are committed"):
        run(job, began=time.monotonic())


def kill_a(name: str) -> list[str]:
    """SIGKILL one of the session cluster's actors of a class; its name, where one is running."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if f"ray::{name}" in " ".join(process.cmdline()):
                process.kill()
                return [name]
    return []

"""The bench and the demo from end to end, on tiny random models."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import StorageError
from models.errors import InvalidOption
from pipelines.bench import run
from pipelines.bench.config import BenchConfig
from pipelines.bench.run import bench
from pipelines.errors import InvalidInput
from pipelines.generate.rows.prompts import read_prompts, requests
from pipelines.inputs.seeds import row_seed
from pipelines.options import from_mapping
from tests.pipelines.generate.image_jobs import raster
from tests.pipelines.generate.inprocess import write_prompts

__all__ = ["raster"]  # a fixture

ROOT = Path(__file__).resolve().parents[3]


def config(checkpoints: dict[str, str], source: str, out: Path, **values: Any) -> BenchConfig:
    fixed = {"target": checkpoints["target"], "input": source, "output": str(out), "threads": 1}
    small = {"prompts": 3, "max_tokens": 12, "repeats": 2, "progress": False}
    return from_mapping(BenchConfig, {**fixed, **small, **values})


@pytest.mark.slow
def test_every_recipe_writes_plains_tokens(
    checkpoints: dict[str, str], prompts: str, tmp_path: Path
) -> None:
    grid = {"drafter": ["none", "lookup", checkpoints["draft"]], "draft_tokens": ["auto", 2]}
    sizes = {"draft_width": [1, 2], "batch_size": [1, 4]}
    found = bench(config(checkpoints, prompts, tmp_path / "out", **grid, **sizes))
    names = ["plain", "lookup auto", "lookup chain of 2"]
    names += ["draft auto", "draft chain of 2", "draft tree of 2×2"]
    assert [line.name for line in found.lines] == 2 * names
    assert all(line.same == line.compared for line in found.lines)
    assert {line.exactness for line in found.lines} == {"identical"}
    assert [line.compared for line in found.lines] == 6 * [6] + [6] + 5 * [8]
    plain, *_, tree = found.lines[:6]
    assert plain.draft_passes == 0
    assert plain.speed_up == 1
    assert tree.draft_passes
    assert tree.accepted_length
    assert tree.accepted_length > 1
    content = json.loads((tmp_path / "out/bench.json").read_text())
    assert len(content["measurements"]) == 12
    assert "| draft tree of 2×2 |" in (tmp_path / "out/bench.md").read_text()
    assert (tmp_path / "out/bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("drafter", ["lokup", "lookup"])
def test_what_generate_refuses_is_refused_before_anything_runs(
    checkpoints: dict[str, str], raster: str, prompts: str, tmp_path: Path, drafter: str
) -> None:
    target = raster if drafter == "lookup" else checkpoints["target"]
    tried = config(checkpoints, prompts, tmp_path / "out", target=target, drafter=["none", drafter])
    told = "did you mean 'lookup'" if drafter == "lokup" else "draft model, with an image target"
    with pytest.raises(InvalidOption, match=f"drafter='{drafter}' is not accepted: .*{told}"):
        bench(tried)


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(
    checkpoints: dict[str, str], prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(run, "measure", lambda config: pytest.fail("it runs"))
    with pytest.raises(StorageError, match=r"cannot write .*/file/out/bench\.json: "):
        bench(config(checkpoints, prompts, tmp_path / "file" / "out"))


@pytest.mark.slow
def test_prompts_that_do_not_fit_are_told(checkpoints: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    rows = [{"id": 1, "prompt": "x" * 250}, {"id": 2, "prompt": "short"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    small = {"drafter": ["none"], "batch_size": [1]}
    found = bench(config(checkpoints, str(source), out, **small))
    assert (found.prompts, found.skipped) == (1, 1)
    assert "1 did not fit the context" in found.text()
    with pytest.raises(InvalidInput, match="max_tokens=255"):
        bench(config(checkpoints, str(source), out, max_tokens=255, **small))


def test_requests_are_those_of_a_generate_job(checkpoints: dict[str, str], prompts: str) -> None:
    from models.requests.request import Sampling

    read = read_prompts(prompts, checkpoint=checkpoints["target"], count=3)
    asked = requests(read, Sampling(), seed=5, at_least=7)
    assert len({request.id for request in asked}) == 7
    assert asked[1].seed == row_seed(5, "1", 0)
    assert asked[4].seed == row_seed(5, "1", 1)
    assert asked[4].prompt == asked[1].prompt == tuple(read[1].tokens)


def test_rows_that_cannot_be_run_are_left_out(checkpoints: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"prompt": ""}\nnot json\n{"prompt": "good"}\n')
    (read,) = read_prompts(str(source), checkpoint=checkpoints["target"], count=3)
    assert read.tokens == tuple(read.tokens)
    source.write_text('{"prompt": ""}\n')
    with pytest.raises(InvalidInput, match="is empty"):
        read_prompts(str(source), checkpoint=checkpoints["target"], count=3)


@pytest.mark.slow
@pytest.mark.ray
def test_the_demo_prints_one_table_and_says_that_tokens_are_the_same(
    checkpoints: dict[str, str], tmp_path: Path
) -> None:
    source = write_prompts(tmp_path / "in/prompts.jsonl", 5)
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "examples/demo.py"),
            *("--target", checkpoints["target"], "--draft", checkpoints["draft"]),
            *("--input", str(source), "--output", str(tmp_path / "out")),
            *("--max-tokens", "12", "--batch-size", "2", "--threads", "1", "--turns", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "The three outputs are the same tokens: 5 of 5 rows." in done.stdout
    assert [row.split("|")[1].strip() for row in done.stdout.splitlines() if "×" in row] == [
        "plain",
        "lookup",
        "draft model",
    ]
    assert max(map(len, done.stdout.split("\n\n")[2].splitlines())) <= 80
    assert len(list((tmp_path / "out/draft-model").glob("part-*.parquet"))) == 1

"""The benchmark's own arithmetic, and all of it once on tiny random models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from benchmarks import real, report
from benchmarks.copying import copied_share, function_prompts, record_prompts
from benchmarks.gguf_file import _interleaved
from benchmarks.predicted import changed, table
from benchmarks.section import Goal, Section, made_of
from benchmarks.text import main, page_of
from benchmarks.work import Work
from models.requests.request import Sampling
from pipelines.bench.machine import this_machine
from pipelines.bench.measurement import Measurement
from pipelines.generate.rows.prompts import read_prompts, requests
from tests.pipelines.generate.inprocess import write_prompts

OWN = ("plain", "draft", "batch", "useless", "overhead")  # lookup wants a longer context


def line(round_ms: float, tokens: int) -> Measurement:
    parts = {"draft": 0.25 * round_ms, "transfer": 0.0, "score": 0.75 * round_ms}
    return Measurement(
        name="x",
        batch_size=1,
        tokens_per_second=1.0,
        speed_up=1.0,
        round_ms={"round": round_ms, **parts, "verify": 0.0, "other": 0.0},
        target_passes=10,
        tokens=tokens,
    )


def test_copies_are_runs_that_stand_earlier() -> None:
    assert copied_share(range(20), list(range(10))) == 1.0
    assert copied_share(range(20), [*range(8), 90, 91]) == 0.8
    assert copied_share(range(20), list(range(7))) == 0.0
    assert copied_share(range(4), list(range(100, 110)) * 2) == 0.5


def test_copy_heavy_prompts_end_in_the_beginning_of_what_they_hold_twice(
    checkpoints: dict[str, str],
) -> None:
    from actors.tokenizer import TokenizerActor

    prompts = function_prompts(checkpoints["target"], count=2)
    assert len(prompts) == 2
    (text,) = TokenizerActor(checkpoints["target"]).decode_batch([prompts[0].tokens])
    first, second, begun = text.split("\n\n\n")
    assert first.strip() == second.strip()
    assert first.strip().startswith(begun.strip())


def test_tables_of_records_share_their_keys(checkpoints: dict[str, str]) -> None:
    from actors.tokenizer import TokenizerActor

    prompts = record_prompts(checkpoints["target"], count=3)
    assert len({prompt.tokens for prompt in prompts}) == 3
    for text in TokenizerActor(checkpoints["target"]).decode_batch([p.tokens for p in prompts]):
        head, *lines = text.strip().splitlines()
        assert head == "FUNCTIONS = ["
        assert len(lines) == 8
        assert all(line.startswith('    {"module": ') for line in lines)


def test_goals_are_met_from_one_side() -> None:
    assert Goal(text="fast", goal=1.5, measured=1.5).met
    assert not Goal(text="fast", goal=1.5, measured=1.49).met
    unasked = Goal(text="fast where it drafts", goal=1.5, measured=1.0, asked=False)
    assert unasked.met is None
    assert unasked.cells()[3] == "–"
    lean = Goal(text="lean", goal=0.1, measured=0.12, at_most=True, percent=True)
    assert lean.cells() == ["lean", "≤ 10.0%", "12.0%", "no", ""]


def test_a_ratio_is_explained_in_plain_rounds() -> None:
    told = made_of(line(6.0, tokens=25), line(4.0, tokens=10))
    assert told == "2.50 plain rounds' tokens at the cost of 1.50: draft 0.38, score 1.12"


def test_the_page_is_made_of_all_sections_that_were_ever_run(tmp_path: Path) -> None:
    page = replace(page_of(cast(Work, None)), name="speeds")
    for name in ("draft", "plain"):
        section = Section(name=name, title=f"About {name}", notes=["A note."])
        section.add("batch 1", [line(6.0, tokens=25)])
        section.goals.append(Goal(text=f"goal of {name}", goal=1.0, measured=2.0, why="parts"))
        report.save(
            section, page.data(tmp_path), machine=this_machine(), command="python", took_s=1.0
        )
    text = report.compose(page, tmp_path)
    assert text == (tmp_path / "speeds.md").read_text()
    assert text.startswith("# Benchmarks: text")
    assert text.index("goal of plain") < text.index("goal of draft") < text.index("## About plain")
    assert json.loads((tmp_path / "speeds-data/plain.json").read_text())["goals"][0]["met"] is True


@pytest.mark.slow
def test_long_prompts_are_measured_with_and_without_a_limit_of_memory(tmp_path: Path) -> None:
    few = ["--long-prompts", "200", "500", "--threads", "1", "--prompts", "1"]
    assert main(["--quick", *few, "--only", "long", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "benchmarks-data/long.json").read_text())
    (table,) = found["tables"]
    rows = [dict(zip(table["heads"], row, strict=True)) for row in table["rows"]]
    assert [row["prompt tokens"] for row in rows] == ["200", "500", "500", "200"]
    assert [row["--memory"] for row in rows] == ["default", "default", "1MiB", "default"]
    assert [row["pass"] for row in rows[2:]] == ["kernels", "torch"]
    assert all(float(row["peak, MiB"]) > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_every_section_runs(name: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
    from benchmarks.text import main

    source = write_prompts(tmp_path / "prompts.jsonl", 2)
    models = ["--target", checkpoints["target"], "--draft", checkpoints["draft"]]
    small = ["--prompts", "2", "--turns", "2", "--max-tokens", "6", "--threads", "1"]
    alike = ["--input", str(source), "--temperatures", "0", "--output", str(tmp_path)]
    assert main(["--quick", *models, *small, *alike, "--only", name]) == 0
    found = json.loads((tmp_path / f"benchmarks-data/{name}.json").read_text())
    assert found["goals"]
    for measured in found["measurements"]:
        assert measured["same"] == measured["compared"] > 0, measured["name"]
    assert found["title"] in (tmp_path / "benchmarks.md").read_text()


def test_the_real_model_is_skipped_loudly_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real, "MODEL", str(tmp_path / "none"))
    assert main(["--only", "real", "--output", str(tmp_path)]) == 2
    assert "SKIPPED section real: no" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_gguf_wants_the_two_halves_of_a_rotation_in_turn() -> None:
    rows = torch.arange(16.0)[:, None]  # two heads of eight
    assert _interleaved(rows, 2)[:, 0].tolist() == [
        *(0, 4, 1, 5, 2, 6, 3, 7),
        *(8, 12, 9, 13, 10, 14, 11, 15),
    ]


def test_the_section_on_a_real_model_runs(
    checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real, "MODEL", checkpoints["target"])
    monkeypatch.setattr(real, "PROMPTS", str(write_prompts(tmp_path / "p.jsonl", 2)))
    prompts = read_prompts(real.PROMPTS, checkpoint=real.MODEL, count=2)
    work = Work(
        target=checkpoints["target"],
        draft=checkpoints["draft"],
        slices=(prompts[:1], prompts[1:]),
        max_tokens=4,
        threads=1,
        job_s=0.0,
        dtypes=("float32",),
    )
    section = real.real(work)
    compared, parts = section.tables[:2]
    assert {row[0] for row in compared.rows} >= {"plain", "lookup, auto", "transformers generate"}
    assert {row[0] for row in parts.rows} >= {"plain", "transformers generate"}
    assert all(line.same == line.compared for line in section.measurements)


def test_predictions_are_wrong_where_they_are_said_to_be() -> None:
    answer = tuple(range(40))
    for every, right in ((10, 36), (3, 27), (1, 0)):
        made = changed(answer, 50, every=every)
        assert sum(a == b for a, b in zip(made, answer, strict=True)) == right
        assert all(0 <= token < 50 for token in made)


def test_predictions_are_compared_with_none(checkpoints: dict[str, str], tmp_path: Path) -> None:
    source = str(write_prompts(tmp_path / "prompts.jsonl", 2))
    prompts = read_prompts(source, checkpoint=checkpoints["target"], count=2)
    sampling = Sampling(max_tokens=24, temperature=0.0, ignore_eos=True)
    lines = table(checkpoints["target"], requests(prompts, sampling, seed=1), 1).splitlines()
    per_pass = {cells[1].strip(): float(cells[4]) for cells in (s.split("|") for s in lines[2:])}
    assert per_pass["none"] == 1.0
    assert per_pass["90 % right"] > 2.0
    assert per_pass["all wrong"] < 1.2

"""Samples of each way, their times, the estimate and the table, with a tiny student."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actors.student import StudentActor
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import Request, Sampling
from models.students.checkpoint import save_student
from models.students.config import MadeFor, StudentConfig
from models.students.start import config_of, student_of
from models.students.teacher import load_teacher
from models.tokenizers import TOKENIZER_FOLDER
from models.training.alternating import step_of
from models.training.engines.worker import Worker
from pipelines.distill.estimate import estimate
from pipelines.distill.records import files_of, records_job
from pipelines.distill.stages import plan_of
from pipelines.distill.students.config import StudentOptions
from pipelines.distill.students.judge import Judgement
from pipelines.distill.students.samples import write_samples
from pipelines.distill.students.student import check
from pipelines.distill.students.timing import times_of
from pipelines.errors import OutputRefused
from pipelines.generate.config import GenerateConfig
from pipelines.generate.fingerprint import fingerprint, noise_of
from pipelines.generate.prepare import prepare
from pipelines.options import from_mapping
from tests.pipelines.generate.image_jobs import (
    NUM_CLASSES,
    NUM_TOKENS,
    raster,
    run_images,
    save_raster,
    save_scale,
    write_rows,
)

__all__ = ["raster"]  # fixture
MADE_FOR = MadeFor(path="t", digest="d" * 32)


@pytest.fixture(scope="module")
def student(raster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    teacher = load_teacher(raster)
    prior = torch.rand(NUM_CLASSES, NUM_TOKENS, teacher.config.vocab_size).softmax(-1)
    made = student_of(teacher, StudentConfig.of(teacher.config, MADE_FOR), prior)
    folder = tmp_path_factory.mktemp("student")
    save_student(made, folder, tokenizer=Path(raster) / TOKENIZER_FOLDER)
    return folder


def test_each_way_makes_the_same_rows_again(student: Path, tmp_path: Path) -> None:
    made = write_samples(tmp_path / "samples", student, (1, 2), rows=20, seed=1)
    assert made == {
        "independent": "samples/independent",
        "1 step": "samples/1-step",
        "2 steps": "samples/2-steps",
    }
    again = write_samples(tmp_path / "again", student, (1, 2), rows=20, seed=1)
    for way, place in made.items():
        table = pq.read_table(tmp_path / place)
        assert table.num_rows == 20
        assert table.column("label").to_pylist() == [row % NUM_CLASSES for row in range(20)]
        assert {len(row) for row in table.column("tokens").to_pylist()} == {NUM_TOKENS}
        assert table.equals(pq.read_table(tmp_path / again[way]))
    half = NUM_TOKENS // 2
    one, two = (pq.read_table(tmp_path / made[way]) for way in ("1 step", "2 steps"))
    for a, b in zip(
        one.column("tokens").to_pylist(), two.column("tokens").to_pylist(), strict=True
    ):
        assert a[:half] == b[:half]  # decided by the first pass, from the same noise


@pytest.mark.parametrize("save", [save_raster, save_scale])
def test_records_have_the_same_bytes_however_they_are_batched(
    save: Callable[[Path], str], tmp_path: Path
) -> None:
    target = save(tmp_path / "target")
    options = StudentOptions(target=target, output=str(tmp_path / "run"), records=12)
    run, found = check(options), set()
    for size in (1, 3, 12):
        job = records_job(run.config, run.about, tmp_path / f"of-{size}", rows=12, seed=3)
        run_images(replace(job, batch_size=size))
        (file,) = files_of(job.output)
        found.add(Path(file).read_bytes())
    assert len(found) == 1


def test_times_are_per_image(student: Path, raster: str) -> None:
    times = times_of(student, raster, 1.0, (1,), (1, 4))
    assert set(times) == {"independent", "1 step", "teacher"}
    assert all(ms > 0 for way in times.values() for ms in way.values())


def test_a_run_that_does_not_fit_the_disk_is_refused(
    raster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StudentOptions(target=raster, output=str(tmp_path / "run"), records=100)
    expected = estimate(config, MADE_FOR, 1.0)
    assert [line.split()[1] for line in expected.lines()] == ["records", "train", "evaluate"]
    assert all(value > 0 for value in (*expected.seconds.values(), *expected.num_bytes.values()))
    expected.refuse_without_room(tmp_path / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OutputRefused, match=r"the run needs .* MiB, 0 MiB are free"):
        expected.refuse_without_room(tmp_path / "run")


def test_given_rows_are_counted(raster: str, tmp_path: Path) -> None:
    """Not as many as are made by default."""
    found = []
    for count in (10, 1_000_000):
        file = tmp_path / f"{count}.parquet"
        pq.write_table(pa.table({"label": pa.array([0] * count, pa.int32())}), file)
        given = {"target": raster, "output": str(tmp_path / "run"), "data": str(file)}
        config = from_mapping(StudentOptions, {**given, "train_steps": 1, "train_batch": 1})
        found.append(estimate(config, MADE_FOR, 1.0).seconds["train"])
    assert found[0] < 21 < 22 < found[1]  # 20 for Ray


def judgement(fd_clf: float) -> Judgement:
    """Of a student with this figure; independent tokens have 9, the target 1."""
    values = {"teacher": 1.0, "independent": 9.0, "1 step": fd_clf}
    return Judgement(
        values={way: {"fd-clf": value} for way, value in values.items()},
        beyond={"1 step": ["fd-clf"]},
        ms_per_image={way: {"1": 2.0} for way in values},
        passes={"teacher": 16, "independent": 0, "1 step": 1},
    )


def test_the_table_says_how_much_of_the_gap_is_closed() -> None:
    found = judgement(3.0)
    assert found.closed == {"1 step": 0.75}
    assert "| 1 step      |      1 |" in found.lines()[0]
    assert "3.0000*" in found.lines()[0]
    assert found.lines()[-1].endswith("1 step 75%")
    (sentence,) = found.findings().headline
    assert "closes 75% of the fd-clf gap between independent tokens and the target;" in sentence


def test_the_page_says_that_a_student_closes_no_gap() -> None:
    (sentence,) = judgement(11.0).findings().headline
    assert "its fd-clf is worse than that of independent tokens;" in sentence


def test_the_table_says_that_there_is_no_gap() -> None:
    values = {way: {"fd-clf": value} for way, value in (("teacher", 9.5), ("independent", 9.0))}
    found = replace(judgement(3.0), values=values | {"1 step": {"fd-clf": 3.0}})
    assert found.closed == {}
    assert found.lines()[-1].startswith("no fd-clf gap between independent and teacher: ")


def test_a_next_scale_target_goes_the_same_way(tmp_path: Path) -> None:
    """Estimate, checks, samples, times, and a checkpoint that generate takes."""
    target = save_scale(tmp_path / "scale")
    run = check(StudentOptions(target=target, output=str(tmp_path / "run"), records=100))
    assert run.most == 4  # maps
    assert all(seconds > 0 for seconds in estimate(run.config, MADE_FOR, 1.0).seconds.values())
    with pytest.raises(InvalidOption, match="steps='1,5' is not accepted: at most 4, the maps of"):
        check(StudentOptions(target=target, output=str(tmp_path / "run"), steps="1,5"))
    with pytest.raises(InvalidOption, match=r"layers=9 is not accepted: at most \d+, the target"):
        check(StudentOptions(target=target, output=str(tmp_path / "run"), layers=9))
    with pytest.raises(UnsupportedCheckpoint, match="method is 'two-head'; a student of a next-sc"):
        check(StudentOptions(target=target, output=str(tmp_path / "run"), method="two-head"))
    teacher = load_teacher(target)
    config = teacher.config
    prior = torch.rand(config.num_classes, config.num_tokens, config.vocab_size).softmax(-1)
    made, folder = student_of(teacher, config_of(teacher, run.made_for), prior), tmp_path / "s"
    save_student(made, folder, tokenizer=Path(target) / TOKENIZER_FOLDER)
    samples = write_samples(tmp_path / "samples", folder, (1, 4), rows=10, seed=1)
    assert list(samples) == ["independent", "1 step", "4 steps"]
    times = times_of(folder, target, 1.0, (1,), (1, 4))
    assert set(times) == {"independent", "1 step", "teacher"}
    rows = write_rows(tmp_path / "labels.jsonl", [{"label": 1}])
    values = {"input": rows, "output": str(tmp_path / "out"), "prompt_field": "label"}
    job = from_mapping(GenerateConfig, {**values, "student": str(folder), "target": str(folder)})
    assert fingerprint(job, prepare(job).plan)["versions"]  # torch decides its sums
    with pytest.raises(InvalidOption, match="steps=5 is not accepted: 1 to 4"):
        prepare(replace(job, steps=5))


def test_a_student_by_score_goes_the_same_way(raster: str, tmp_path: Path) -> None:
    """Estimate, records, training, export, samples, times, and rows by generate."""
    told = {"target": raster, "output": str(tmp_path / "run"), "method": "score", "records": 40}
    run = check(from_mapping(StudentOptions, {**told, "train_batch": 4, "train_steps": 2}))
    assert all(seconds > 0 for seconds in estimate(run.config, MADE_FOR, 1.0).seconds.values())
    spread = from_mapping(StudentOptions, {**told, "deepspeed": "zero.json"})
    with pytest.raises(InvalidOption, match=r"deepspeed='zero\.json' is not accepted: none with"):
        check(spread)
    job = records_job(run.config, run.about, tmp_path / "records", rows=40, seed=3)
    run_images(job)
    training = step_of(run.build({"files": files_of(job.output)})(Worker()), plan_of(run.config))
    training.step()
    assert training.examine()["distance"] < 4
    training.kind.export(training.chosen(), tmp_path / "s")
    samples = write_samples(tmp_path / "samples", tmp_path / "s", (1, 2), rows=10, seed=1)
    assert list(samples) == ["independent", "1 step", "2 steps"]
    assert set(times_of(tmp_path / "s", raster, 1.0, (1,), (1,))) == {*samples, "teacher"} - {
        "2 steps"
    }
    actor = StudentActor(str(tmp_path / "s"), 1, None)
    prompt = (load_teacher(raster).config.vocab_size + 2,)
    asked = Request(id="0", prompt=prompt, sampling=Sampling(max_tokens=NUM_TOKENS), seed=5)
    (one,), (again,) = (actor.run([asked])[1] for _ in range(2))
    assert one.tokens == again.tokens
    assert one.exactness == "approximate"
    assert (actor.describe()["method"], actor.describe()["noise"]) == ("score", "score")
    rows = write_rows(tmp_path / "labels.jsonl", [{"label": 1}])
    values = {"input": rows, "output": str(tmp_path / "out"), "prompt_field": "label"}
    made = str(tmp_path / "s")
    asks = from_mapping(GenerateConfig, {**values, "student": made, "target": made})
    assert noise_of(asks) == "score"
    assert fingerprint(asks, prepare(asks).plan)["settings"]["noise"] == "score"

"""A whole distillation of a tiny target, by a command that is killed; then its student is used."""

import json
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from actors.student import StudentActor
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.requests.request import Request, Sampling
from models.students.checkpoint import load_student
from models.training.engines.worker import Worker
from models.training.log import EXAMS, METRICS, read_lines
from models.training.step import TrainingStep
from pipelines.cli import main, parse
from pipelines.distill.command import student_config
from pipelines.distill.records import files_of, records_job
from pipelines.distill.stages import plan_of
from pipelines.distill.students.student import HELD_OUT_SEED, StudentRun, check
from pipelines.generate.config import GenerateConfig
from pipelines.generate.prepare import prepare
from pipelines.generate.student import with_target
from pipelines.options import from_mapping
from tests.pipelines.distill.killed import kill_a_worker, run_until_killed
from tests.pipelines.distill.pickles import pickles_in
from tests.pipelines.generate.image_jobs import NUM_TOKENS, labels, raster, run_images

__all__ = ["labels", "raster"]  # fixtures
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
STEPS, DRIVER_DIES, WORKER_DIES = 120, 30, 70


def test_from_a_target_to_images_of_a_student(
    raster: str, labels: str, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    sizes = {"records": 60, "train-batch": 8, "eval-rows": 20, "threads": 1}
    often = {"train-steps": STEPS, "save-every": 20, "exam-every": 40}
    given = [word for name, value in (sizes | often).items() for word in (f"--{name}", str(value))]
    words = ["distill", "student", "--target", raster, "--output", str(out), *given]
    command = [*words, "--no-progress"]
    assert len(run_until_killed(command, out, after=DRIVER_DIES)) == 1
    killed: list[int] = []
    thread = Thread(target=partial(kill_a_worker, out, killed, after=WORKER_DIES))
    thread.start()
    assert main(command) == 0
    thread.join()
    assert len(killed) == 1
    told = capsys.readouterr().out
    assert "estimate   records" in told
    assert "| 2 steps" in told
    assert_undisturbed(out, command, raster)
    found = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert set(found["values"]) == {"teacher", "independent", "1 step", "2 steps"}
    assert found["passes"] == {"teacher": 16, "independent": 0, "1 step": 1, "2 steps": 2}
    about = json.loads((out / "run.json").read_text())
    student = load_student(out / "export").config
    target = student.target
    assert about["decides"]["target"] == target.digest
    assert target.path == raster
    page = (out / "report.html").read_text()
    assert "A student of" in page
    assert page.count("data:image/png;base64") == 1
    for name in ("curves.png", "samples.png"):
        assert (out / "evaluation" / name).stat().st_size > 1000
    assert pickles_in(out) == []
    kinds = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert not kinds & {".pkl", ".pickle", ".pt", ".bin"}
    told_train = json.loads((out / "_stages" / "train.json").read_text())["told"]
    assert told_train["steps"] == STEPS

    assert main(command) == 0
    assert capsys.readouterr().out.count("done before") == 5
    assert main([*command, "--steps", "1,3"]) == 0
    told = capsys.readouterr().out
    assert "another evaluation: steps was '1,2', is '1,3'" in told
    assert told.count("done before") == 2  # records, train
    assert "| 3 steps" in told
    assert main([*command, "--records", "61"]) == 2
    assert "holds another run: records was 60, is 61" in capsys.readouterr().err

    job = {"student": str(out / "export"), "input": labels, "output": str(tmp_path / "rows")}
    prepare(from_mapping(GenerateConfig, with_target({**job, "prompt_field": "label", "steps": 2})))
    actor = StudentActor(str(out / "export"), steps=2, threads=1)
    (image,) = actor.run([Request(id="0", prompt=(student.vocab_size,))])[1]
    assert (len(image.tokens), image.exactness) == (NUM_TOKENS, "approximate")


def assert_undisturbed(out: Path, command: list[str], target: str) -> None:
    """Records, losses and exams are those of a run of this process, to the bit."""
    run = check(student_config(parse(command)))
    data = json.loads((out / "_stages" / "records.json").read_text())["told"]
    for file in data["files"]:
        for row in pq.read_table(file).slice(0, 5).to_pylist():
            assert row["tokens"] == plain_tokens(target, row)
    assert_same_files(out, run)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = TrainingStep(run.build(data)(Worker()), plan_of(run.config))
    exams = [{"step": 0, **plain.examine()}]
    losses = []
    while plain.done < STEPS:
        losses.append(plain.step()["loss"])
        if plain.done % 40 == 0:
            exams.append({"step": plain.done, **plain.examine()})
    torch.set_num_threads(threads)
    lines = read_lines(out / "train" / METRICS)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines] == losses
    assert read_lines(out / "train" / EXAMS) == exams
    chosen, student = plain.chosen(), load_student(out / "export")
    for wanted, found in zip(chosen.parameters(), student.parameters(), strict=True):
        assert torch.equal(wanted, found)


def assert_same_files(out: Path, run: StudentRun) -> None:
    """The shards that lost their actor were run again, and have the bytes of a run without Ray."""
    held = {"rows": 2 * run.config.eval_rows, "seed": run.config.seed + HELD_OUT_SEED}
    kept = {"rows": run.config.records, "seed": run.config.seed}
    for name, sizes in (("held-out", held), ("records", kept)):
        job = records_job(run.config, run.about, out.parent / "again" / name, **sizes)
        assert run_images(job).entries
        (again,), (file,) = files_of(job.output), files_of(out / name)
        assert Path(again).read_bytes() == Path(file).read_bytes()


def plain_tokens(target: str, row: dict[str, Any]) -> list[int]:
    """A record's tokens, by decoding in this process."""
    loop = build_loop(EngineConfig(target=target, drafter="none", batch_size=1))
    prompt, sampling = (loop.target.vocab_size + row["label"],), Sampling(max_tokens=NUM_TOKENS)
    (found,) = loop.run([Request(id="0", prompt=prompt, sampling=sampling, seed=row["seed"])])
    return list(found.tokens)

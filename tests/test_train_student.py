"""The trainer of the shipped student from end to end, at a size that takes seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import train_student as demo
from models.students.checkpoint import load_student
from models.students.networks.raster import Student
from models.students.pairs import Records
from models.tokenizers import TOKENIZER_FOLDER
from pipelines.generate.fingerprint import checkpoint_digest


@pytest.mark.slow
def test_writes_a_student_that_loads(tmp_path: Path) -> None:
    out = tmp_path / "student"
    threads = torch.get_num_threads()
    sizes = ["--records", "20", "--steps", "2", "--batch", "4"]
    demo.main(["--output", str(out), *sizes])
    torch.set_num_threads(threads)
    student = load_student(out)
    assert isinstance(student, Student)
    assert student.config.target.path == "digits-raster"
    assert (out / TOKENIZER_FOLDER / "model.safetensors").exists()
    report = json.loads((out / "report.json").read_text())
    assert report["steps"] == 2
    (exam,) = report["exams"]
    assert 0 < exam["loss"] < 6
    assert 0 < exam["divergence"] < 6


def test_noise_is_drawn_several_times_for_all_but_the_exams_records() -> None:
    records = Records(
        classes=torch.arange(5), tokens=torch.arange(10).view(5, 2), seeds=np.arange(100, 105)
    )
    found = demo.repeated(records, draws=2, kept=2)
    assert found.classes.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert found.tokens[3:6].tolist() == records.tokens[:3].tolist()
    assert len(set(found.seeds.tolist())) == len(found)
    assert found.seeds[:3].tolist() == [100, 101, 102]


def test_a_student_stands_beside_its_target_unless_told_otherwise() -> None:
    assert demo.parse([]).output == demo.HERE / "digits-raster-student"
    assert str(demo.parse(["--target", "a/digits-scale"]).output) == "a/digits-scale-student"
    assert str(demo.parse(["--target", "t", "--method", "two-head"]).output) == "t-two-head"
    assert str(demo.parse(["--output", "out/s"]).output) == "out/s"


def test_draws_are_of_methods_that_learn_from_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.parse([]).draws == 2
    assert demo.parse(["--draws", "3"]).draws == 3
    assert demo.parse(["--method", "score"]).draws == 0
    with pytest.raises(SystemExit):
        demo.parse(["--method", "score", "--draws", "3"])
    assert "--draws: none with --method score" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["digits-raster", "digits-scale"])
def test_the_shipped_students_are_of_the_shipped_targets(name: str) -> None:
    student = load_student(demo.HERE / f"{name}-student")
    assert student.config.target.path == name
    assert student.config.target.digest == checkpoint_digest(str(demo.HERE / name))

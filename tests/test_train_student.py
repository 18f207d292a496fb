"""The trainer of the shipped student from end to end, at a size that takes seconds."""

import json
from pathlib import Path

import pytest
import torch

from examples import train_student as demo
from models.students.checkpoint import load_student
from models.students.network import Student
from models.tokenizers import TOKENIZER_FOLDER


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
    assert 0 < report["loss"] < 6

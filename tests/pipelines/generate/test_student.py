"""Generate jobs with a student in the target's place: what is refused, and rows on Ray."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.compute.x86.kernels import compiled
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.students.checkpoint import save_student
from models.students.config import MadeFor, StudentConfig
from models.students.start import student_of
from models.students.teacher import load_teacher
from models.tokenizers import TOKENIZER_FOLDER
from pipelines.cli import main
from pipelines.generate.config import GenerateConfig
from pipelines.generate.fingerprint import checkpoint_digest, fingerprint
from pipelines.generate.prepare import prepare
from pipelines.generate.student import with_target
from pipelines.modality.choose import modality_of
from pipelines.options import from_mapping
from tests.pipelines.generate.image_jobs import labels, raster
from tests.pipelines.generate.inprocess import outcome

__all__ = ["labels", "raster"]  # fixtures


@pytest.fixture(scope="module")
def student(raster: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    teacher = load_teacher(raster)
    said = StudentConfig.of(teacher.config, MadeFor(path=raster, digest=checkpoint_digest(raster)))
    prior = torch.rand(5, 16, teacher.config.vocab_size).softmax(-1)
    folder = tmp_path_factory.mktemp("student")
    save_student(
        student_of(teacher, said, prior), folder, tokenizer=Path(raster) / TOKENIZER_FOLDER
    )
    return str(folder)


RASTER = "the target"


def config_of(source: str, output: Path, **values: Any) -> GenerateConfig:
    settings = {"input": source, "output": str(output), "prompt_field": "label", "seed": 5}
    return from_mapping(GenerateConfig, with_target({**settings, **values}))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"temperature": 0.5}, r"temperature=0\.5 is not accepted: only 1\.0 with a student"),
        ({"decoder": "jacobi"}, r"decoder='jacobi' is not accepted: only None with a student"),
        ({"guidance": 2.0}, r"guidance=2\.0 is not accepted: 1\.0, with which the student"),
        ({"steps": 17}, "steps=17 is not accepted: 1 to 16"),
        ({"teacher": RASTER, "teacher_tokens": "4"}, "teacher_tokens='4' is not accepted: A:B"),
        ({"teacher": RASTER, "teacher_tokens": "4:4"}, "A:B with A below B, both 0 to 16"),
        ({"teacher": RASTER, "teacher_tokens": "4:17"}, "A:B with A below B, both 0 to 16"),
    ],
)
def test_what_a_student_has_not_learned_is_refused(
    student: str, raster: str, labels: str, tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    values = {name: raster if value == RASTER else value for name, value in values.items()}
    config = config_of(labels, tmp_path / "out", student=student, **values)
    with pytest.raises(InvalidOption, match=told):
        modality_of(config).settled(config)


def test_a_student_is_no_target_and_a_target_no_student(
    student: str, raster: str, labels: str, tmp_path: Path
) -> None:
    config = config_of(labels, tmp_path / "out", target=student)
    with pytest.raises(InvalidOption, match="it is a student: give it as --student"):
        modality_of(config).settled(config)
    config = config_of(labels, tmp_path / "out", student=raster)
    with pytest.raises(UnsupportedCheckpoint, match="holds no student"):
        modality_of(config).settled(config)
    with pytest.raises(InvalidOption, match="steps=2 is not accepted: only with --student"):
        config_of(labels, tmp_path / "out", target=raster, steps=2)
    with pytest.raises(InvalidOption, match="only with --student and --teacher-tokens"):
        config_of(labels, tmp_path / "out", student=student, teacher=raster)
    with pytest.raises(InvalidOption, match="only with --student and --teacher"):
        config_of(labels, tmp_path / "out", target=raster, teacher_tokens="1:2")


def test_a_student_of_another_target_is_refused(
    student: str, raster: str, labels: str, tmp_path: Path
) -> None:
    both = {"student": student, "target": raster}
    assert config_of(labels, tmp_path / "out", **both).target == student
    with (Path(raster) / "report.json").open("w") as file:  # another target
        file.write("{}")
    try:
        with pytest.raises(UnsupportedCheckpoint, match=r"made for the target .*, not for"):
            config_of(labels, tmp_path / "out", **both)
    finally:
        (Path(raster) / "report.json").unlink()


def test_the_fingerprint_names_noise_steps_and_the_teacher_s_tokens(
    student: str, raster: str, labels: str, tmp_path: Path
) -> None:
    prints = []
    mixed = {"teacher": raster, "teacher_tokens": "4:8"}
    for name, more in (("a", {}), ("b", {"steps": 2}), ("c", mixed)):
        config = config_of(labels, tmp_path / name, student=student, **more)
        prints.append(fingerprint(config, prepare(config).plan)["settings"])
    assert prints[0]["noise"].startswith("flow:K20:v1")
    assert [found["student_steps"] for found in prints] == [1, 2, 1]
    assert [found.get("teacher_tokens") for found in prints] == [None, None, "4:8"]


@pytest.mark.ray
def test_rows_of_a_student(
    student: str,
    raster: str,
    labels: str,
    tmp_path: Path,
    ray_cluster: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--student", student, "--input", labels, "--prompt-field", "label", "--seed", "5"]
    trace = tmp_path / "trace.json"
    smaller = ["--batch-size", "3", "--target-actors", "2", "--trace", str(trace)]
    mixed = ["--teacher", raster, "--teacher-tokens", "3:16"]
    for name, more in (("a", []), ("b", smaller), ("c", mixed)):
        out = str(tmp_path / name)
        words = ["generate", *given, "--output", out, "--threads", "1", "--no-progress", *more]
        assert main(words) == 0
    assert "approximate" in capsys.readouterr().out
    rows = outcome(str(tmp_path / "a"))
    assert len(rows) == 11
    assert {row["exactness"] for row in rows} == {"approximate"}
    assert {len(row["tokens"]) for row in rows} == {16}
    events = json.loads(trace.read_text())["traceEvents"]
    processes = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert processes == {"driver", "pool", "student-0", "student-1"}
    assert sum(e["name"] == "passes" for e in events) == len(rows)
    again = [row["tokens"] for row in outcome(str(tmp_path / "c"))]
    assert [tokens[:3] for tokens in again] == [row["tokens"][:3] for row in rows]
    assert [tokens[3:] for tokens in again] != [row["tokens"][3:] for row in rows]
    other = outcome(str(tmp_path / "b"))  # in other batches
    pairs = [
        (a, b)
        for x, y in zip(rows, other, strict=True)
        for a, b in zip(x["tokens"], y["tokens"], strict=True)
    ]
    assert sum(a == b for a, b in pairs) > 0.95 * len(pairs)
    if compiled():
        assert [row["tokens"] for row in other] == [row["tokens"] for row in rows]

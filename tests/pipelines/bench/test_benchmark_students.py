"""The students' benchmark, once on a tiny random target and an untrained student."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import students as bench
from models.students.checkpoint import save_student
from models.students.config import MadeFor, StudentConfig
from models.students.start import student_of
from models.students.teacher import load_teacher
from models.tokenizers import TOKENIZER_FOLDER
from tests.pipelines.generate.image_jobs import NUM_CLASSES, NUM_TOKENS, raster

__all__ = ["raster"]  # a fixture
CLASSIFIER = Path(__file__).parents[3] / "examples" / "models" / "digits-classifier"


@pytest.fixture
def student(raster: str, tmp_path: Path) -> str:
    teacher = load_teacher(raster)
    prior = torch.rand(NUM_CLASSES, NUM_TOKENS, teacher.config.vocab_size).softmax(-1)
    config = StudentConfig.of(teacher.config, MadeFor(path="t", digest="d" * 32))
    folder = tmp_path / "small-student"
    made = student_of(teacher, config, prior)
    save_student(made, folder, tokenizer=Path(raster) / TOKENIZER_FOLDER)
    return str(folder)


def test_every_way_has_figures_and_drafters_make_the_same_images(
    raster: str, student: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads, out = torch.get_num_threads(), tmp_path / "figures.json"
    where = ["--target", raster, "--classifier", str(CLASSIFIER), "--output", str(out)]
    bench.main([student, *where, "--rows", "20", "--last", "4", "--drafts", "4"])
    torch.set_num_threads(threads)
    found = json.loads(out.read_text())
    passes = {"teacher": 16, "independent": 0, "last 4 independent": 12, "1 step": 1, "2 steps": 2}
    assert found["passes"] == passes
    for way in passes:
        assert {"fd-clf", "recall", "token-entropy", "nll"} <= set(found["values"][way])
        assert all(ms > 0 for ms in found["ms_per_image"][way].values())
    assert set(found["fd_clf_gap_closed"]) <= {"last 4 independent", "1 step", "2 steps"}
    lines = {(line["noise"], line["drafter"]): line for line in found["drafters"]}
    assert all(line["same images"] == "yes" for line in lines.values())
    for noise in ("flow:K20:v1", "gumbel"):
        assert lines[noise, "none"]["target passes"] == f"{NUM_TOKENS:.2f}"
        assert lines[noise, "small-student"]["student passes"] == "1.00"
    assert "| independent" in capsys.readouterr().out


def test_the_last_tokens_are_those_of_independent_sampling(raster: str, student: str) -> None:
    from models.sampling.flow import FlowMap
    from models.students.checkpoint import load_student
    from models.students.sample import first_guesses, image_noise

    made, classes = load_student(student), torch.arange(3)
    noise = image_noise([1, 2, 3], NUM_TOKENS, made.config.code_width)
    passes, tokens, times = bench.cut(raster, made, 4, classes, noise)
    assert passes == NUM_TOKENS - 4
    guesses = first_guesses(FlowMap(made.codebook), made.prior, classes, noise)
    assert torch.equal(tokens[:, passes:], guesses[:, passes:])
    whole = bench.decoded(raster, NUM_TOKENS, 3, seed=bench.PREFIXES)
    assert torch.equal(tokens[:, :passes], whole[:, :passes])
    assert set(times) == {"1", "64"}

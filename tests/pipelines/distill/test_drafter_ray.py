"""A whole distillation of a drafter with streamed states; then generate drafts with it."""

import json
from pathlib import Path

import pytest

from models.drafting.folder_kind import EAGLE, folder_kind
from models.training.log import EXAMS, read_lines
from pipelines.cli import main
from pipelines.generate.config import GenerateConfig
from pipelines.modality.choose import modality_of
from pipelines.options import from_mapping
from tests.pipelines.distill.recomputed import assert_recomputed
from tests.pipelines.generate.image_jobs import LoopPool
from tests.pipelines.generate.inprocess import outcome, run_job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def test_from_prompts_to_completions_with_the_drafter(
    checkpoints: dict[str, str],
    prompts: str,
    tmp_path: Path,
    ray_cluster: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target, out = checkpoints["target"], tmp_path / "run"
    sizes = {"records": 23, "train-steps": 4, "train-batch": 4, "exam-every": 2, "threads": 1}
    sizes |= {"length": 60, "depth": 2, "exam-prompts": 3, "exam-tokens": 8}
    given = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    command = ["distill", "drafter", "--target", target, "--kind", "eagle", *given]
    command += ["--prompts", prompts, "--output", str(out), "--no-progress"]
    command += ["--states", "stream", "--window", "2"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "| this drafter" in told
    assert "| lookup" in told
    assert "states     2 steps ahead, at most" in told
    assert_recomputed(out, command)
    found = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert {line["drafter"] for line in found["lines"]} == {"plain", "lookup", "this drafter"}
    assert {line["temperature"] for line in found["lines"]} == {0, 1}
    exams = read_lines(out / "train" / EXAMS)
    assert [exam["step"] for exam in exams] == [0, 2, 4]
    assert all(exam["score"] >= 1 for exam in exams)
    assert folder_kind(out / "export") == EAGLE
    assert (out / "export" / "report.json").exists()
    assert "this drafter" in (out / "report.html").read_text(encoding="utf-8")
    kinds = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert not kinds & {".pkl", ".pickle", ".pt", ".bin"}

    assert main(command) == 0
    assert capsys.readouterr().out.count("done before") == 5

    drafter, rows = str(out / "export"), str(tmp_path / "rows")
    words = ["generate", "--target", target, "--input", prompts, "--drafter", drafter]
    words += ["--output", rows, "--max-tokens", "12", "--threads", "1", "--no-progress"]
    assert main(words) == 0
    plain = plain_job(target, prompts, tmp_path / "plain")
    for expected, drafted in zip(outcome(plain), outcome(rows), strict=True):
        assert drafted["tokens"] == expected["tokens"]
        assert drafted["exactness"].startswith("identical")


def plain_job(target: str, prompts: str, output: Path) -> str:
    """Completions without a drafter, by this process."""
    given = {"target": target, "input": prompts, "output": str(output), "drafter": "none"}
    config = from_mapping(GenerateConfig, {**given, "max_tokens": 12, "threads": 1})
    run_job(config, pool=LoopPool(config), codec=modality_of(config).codec())
    return config.output

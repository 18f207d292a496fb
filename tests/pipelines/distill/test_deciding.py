"""Which options of a distillation make another run: each is decided about, and tried."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.distill.config import DistillConfig
from pipelines.distill.drafters import drafter
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.folder import RunFolder
from pipelines.distill.stages import _about, _agreed
from pipelines.distill.students import student
from pipelines.distill.students.config import StudentOptions
from pipelines.errors import OutputRefused
from pipelines.options import from_mapping
from tests.models.drafting.heads.random_heads import write_target as write_text_target
from tests.pipelines.generate.image_jobs import raster

__all__ = ["raster"]  # a fixture
# Another value for each option that decides what comes out.
OF_BOTH: dict[str, Any] = {
    "records": 77,
    "seed": 3,
    "train_steps": 7,
    "train_batch": 6,
    "rate": 0.01,
    "exam_every": 9,
}
OF_STUDENTS = {
    "method": "two-head",
    "layers": 1,
    "steps": "1",
    "label_field": "class",
    "guidance": 1.5,
    "eval_rows": 30,
    "classifier": "elsewhere",
}
OF_DRAFTERS = {
    "kind": "medusa",
    "prompt_field": "text",
    "renew": 2,
    "length": 64,
    "depth": 3,
    "width": 24,
    "loss": "divergence",
    "exam_prompts": 5,
    "exam_tokens": 9,
    "beside": ("none",),
}
NEVER: dict[str, Any] = {
    "save_every": 3,
    "workers": 2,
    "threads": 1,
    "target_actors": 3,
    "batch_size": 5,
    "device": "cpu",
    "address": "auto",
    "progress": False,
    "resume": False,
}
NEVER_OF_DRAFTERS = NEVER | {"states": "stream"}
BY_CONTENT = {"target", "output", "data", "deepspeed"}  # where they lie does not matter
# `draft_vocab` goes with heads, `guidance` with images, `window` with `states`: tried apart.
APART = {"start", "prompts", "draft_vocab", "guidance", "window"}

Make = Callable[..., Any]


def test_every_option_is_decided_about() -> None:
    of_students = {*OF_BOTH, *OF_STUDENTS, *NEVER, *BY_CONTENT}
    assert of_students == {found.name for found in fields(StudentOptions)}
    of_drafters = {*OF_BOTH, *OF_DRAFTERS, *NEVER_OF_DRAFTERS, *BY_CONTENT, *APART}
    assert of_drafters == {found.name for found in fields(DrafterOptions)}


@pytest.fixture
def make_student(raster: str, tmp_path: Path) -> Make:
    def make(**values: Any) -> student.StudentRun:
        given = {"target": raster, "output": str(tmp_path / "run"), **values}
        return student.check(from_mapping(StudentOptions, given))

    return make


@pytest.fixture
def make_drafter(tmp_path: Path) -> Make:
    target = write_text_target(tmp_path / "target")
    (tmp_path / "prompts.txt").write_text("a\nb\n")

    def make(**values: Any) -> drafter.DrafterRun:
        prompts = {"prompts": str(tmp_path / "prompts.txt")}
        given = {"target": str(target), "output": str(tmp_path / "run"), **prompts, **values}
        return drafter.check(from_mapping(DrafterOptions, given))

    return make


def decides(run: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _about(run)["decides"]
    return found


def changed(run: Any, name: str, value: Any) -> Any:
    config: DistillConfig = run.config
    assert getattr(config, name) != value  # or nothing would be shown
    return replace(run, config=replace(config, **{name: value}))


@pytest.mark.parametrize("name", OF_BOTH | OF_STUDENTS)
def test_what_decides_a_student(make_student: Make, name: str) -> None:
    run = make_student()
    assert decides(changed(run, name, (OF_BOTH | OF_STUDENTS)[name])) != decides(run)


@pytest.mark.parametrize("name", OF_BOTH | OF_DRAFTERS)
def test_what_decides_a_drafter(make_drafter: Make, name: str) -> None:
    run = make_drafter()
    assert decides(changed(run, name, (OF_BOTH | OF_DRAFTERS)[name])) != decides(run)


def test_what_decides_no_more_than_the_evaluation(make_student: Make, make_drafter: Make) -> None:
    """A training that was interrupted goes on with another value, too."""
    cases = (
        (make_student(), OF_STUDENTS, ["steps", "eval_rows", "classifier"]),
        (make_drafter(), OF_DRAFTERS, ["beside"]),
    )
    for run, others, judging in cases:
        assert _about(run)["judging"] == judging
        for name, value in others.items():
            same = _agreed(changed(run, name, value)) == _agreed(run)
            assert same == (name in judging), name


@pytest.mark.parametrize("name", NEVER)
def test_what_decides_no_student(make_student: Make, name: str) -> None:
    run = make_student()
    assert decides(changed(run, name, NEVER[name])) == decides(run)


@pytest.mark.parametrize("name", NEVER_OF_DRAFTERS)
def test_what_decides_no_drafter(make_drafter: Make, name: str) -> None:
    run = make_drafter()
    assert decides(changed(run, name, NEVER_OF_DRAFTERS[name])) == decides(run)


def test_what_goes_with_other_options(make_drafter: Make) -> None:
    heads = make_drafter(kind="medusa")
    assert decides(changed(heads, "draft_vocab", 9)) != decides(heads)
    streamed = make_drafter(states="stream")
    assert decides(changed(streamed, "window", 2)) == decides(streamed)


def test_contents_decide_and_places_do_not(make_drafter: Make, tmp_path: Path) -> None:
    before, prompts = decides(make_drafter()), tmp_path / "prompts.txt"
    moved = prompts.rename(tmp_path / "moved.txt")
    assert decides(make_drafter(prompts=str(moved))) == before
    moved.write_text("a\nc\n")
    assert decides(make_drafter(prompts=str(moved))) != before


def write(folder: Path, **values: Any) -> str:
    (folder / "deepspeed.json").write_text(json.dumps(values))
    return str(folder / "deepspeed.json")


def test_bf16_decides_and_the_stage_does_not(make_drafter: Make, tmp_path: Path) -> None:
    """A state holds whole float32 tensors; what is computed from them in bf16 is something else."""
    plain = make_drafter()
    spread = make_drafter(deepspeed=write(tmp_path, zero_optimization={"stage": 2}))
    assert decides(spread) == decides(plain)
    off = {"zero_optimization": {"stage": 1}, "bf16": {"enabled": False}}
    assert decides(make_drafter(deepspeed=write(tmp_path, **off))) == decides(plain)
    folder = RunFolder(plain.path, tell=print)
    plain.path.mkdir()
    folder.describe(_about(plain))
    folder.stage("records", dict)
    half = write(tmp_path, zero_optimization={"stage": 1}, bf16={"enabled": True})
    with pytest.raises(OutputRefused, match="bf16 was None, is True"):
        folder.describe(_about(make_drafter(deepspeed=half)))

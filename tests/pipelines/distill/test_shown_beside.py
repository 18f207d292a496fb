"""What the evaluation needs is checked before anything is made: drafters, a classifier."""

import shutil
from pathlib import Path

import pytest

from cluster.storage import storage
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.metrics.images.classifier import Classifier
from models.metrics.images.classifier_file import classifier_bytes
from pipelines.distill.drafters import drafter
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.students import student
from pipelines.distill.students.config import StudentOptions
from pipelines.errors import InvalidInput
from pipelines.options import from_mapping
from tests.pipelines.generate.image_jobs import NUM_CLASSES, raster

__all__ = ["raster"]  # a fixture
MODELS = Path(__file__).parents[3] / "examples" / "models"
DIGITS, STUDENT = str(MODELS / "digits-raster"), str(MODELS / "digits-raster-student")


def check_drafter(target, tmp_path, beside, **values):
    prompts = {} if target == DIGITS else {"prompts": "p"}
    given = {"target": target, "output": str(tmp_path / "run"), "beside": beside, **prompts}
    return drafter.check(from_mapping(DrafterOptions, {**given, **values}))


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        (STUDENT, UnsupportedCheckpoint, "the student was made for the target .*digits-raster"),
        (DIGITS, UnsupportedCheckpoint, "generates images token by token, .* does not"),
        (str(MODELS / "digits-classifier"), UnsupportedCheckpoint, "digits-classifier"),
        (str(Path(__file__).parent), UnsupportedCheckpoint, r"config\.json"),
        ("lokup", InvalidOption, "beside='lokup' is not accepted: .*did you mean 'lookup'"),
    ],
)
def test_what_cannot_draft_for_the_target_is_refused(name, error, told, checkpoints, tmp_path):
    with pytest.raises(error, match=told):
        check_drafter(checkpoints["target"], tmp_path, ["lookup", name])
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_name_is_told(checkpoints, tmp_path):
    shutil.copytree(checkpoints["draft"], tmp_path / "my-draft")
    with pytest.raises(InvalidOption, match=r"beside='.*' is not .*did you mean .*/my-draft\?"):
        check_drafter(checkpoints["target"], tmp_path, [str(tmp_path / "my-drft")])


def test_a_context_that_is_too_short_is_refused(checkpoints, tmp_path):
    """Half of the length may be a prompt, and the exams write what follows."""
    folder = tmp_path / "draft"
    shutil.copytree(checkpoints["draft"], folder)
    config = (folder / "config.json").read_text()
    short = config.replace('"max_position_embeddings": 256', '"max_position_embeddings": 64')
    assert short != config
    (folder / "config.json").write_text(short)
    sizes = {"length": 64, "exam_tokens": 32}
    check_drafter(checkpoints["target"], tmp_path, [str(folder)], **sizes)
    with pytest.raises(InvalidOption, match="a context of 65 tokens or more, not 64"):
        check_drafter(checkpoints["target"], tmp_path, [str(folder)], **sizes | {"exam_tokens": 33})


def test_exams_that_no_context_holds_are_refused(checkpoints, tmp_path):
    check_drafter(checkpoints["target"], tmp_path, ["none"], exam_tokens=255)
    with pytest.raises(InvalidOption, match=r"exam_tokens=256 .* less than the target's"):
        check_drafter(checkpoints["target"], tmp_path, ["none"], exam_tokens=256)


def test_a_student_of_the_target_fits(tmp_path):
    check_drafter(DIGITS, tmp_path, ["jacobi", STUDENT])


def test_a_drafter_on_s3_is_fetched(checkpoints, tmp_path, s3_bucket, monkeypatch):
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))
    for file in Path(checkpoints["draft"]).glob("*"):
        storage.upload(file, f"{s3_bucket}/draft/{file.name}")
    found = check_drafter(checkpoints["target"], tmp_path, [f"{s3_bucket}/draft"])
    assert found.config.beside == (f"{s3_bucket}/draft",)  # the evaluation shows it by this name
    assert list((tmp_path / "cache").rglob("model.safetensors"))
    storage.publish(f"{s3_bucket}/docs/config.json", b"{}")
    with pytest.raises(UnsupportedCheckpoint, match="docs"):
        check_drafter(checkpoints["target"], tmp_path, [f"{s3_bucket}/docs"])


def check_student(target, tmp_path, classifier):
    given = {"target": target, "output": str(tmp_path / "run"), "classifier": str(classifier)}
    return student.check(from_mapping(StudentOptions, given))


def save_classifier(folder, labels):
    for name, data in classifier_bytes(Classifier((1, 8, 8), labels), {}).items():
        storage.publish(str(folder / name), data)
    return folder


def test_a_classifier_that_is_none_is_refused(raster, tmp_path):
    with pytest.raises(InvalidInput, match="is no file, and no folder with files"):
        check_student(raster, tmp_path, tmp_path / "nothing")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(InvalidInput, match=r"holds 'notes\.md'"):
        check_student(raster, tmp_path, tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match="is no paceline_classifier"):
        check_student(raster, tmp_path, raster)


def test_a_classifier_that_does_not_know_all_classes_is_refused(raster, tmp_path):
    known = tuple(str(label) for label in range(NUM_CLASSES))
    check_student(raster, tmp_path, save_classifier(tmp_path / "whole", known))
    told = f"the target has the label '{NUM_CLASSES - 1}', which the classifier does not know"
    with pytest.raises(InvalidInput, match=told):
        check_student(raster, tmp_path, save_classifier(tmp_path / "part", known[:-1]))

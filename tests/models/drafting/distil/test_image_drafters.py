"""Training of draft models of image targets: the laws to learn, resumption, exams, exports."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.batch import chains
from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.kind import Course
from models.drafting.distil.teacher import load_teacher
from models.drafting.distil.texts import Text, batch_of, write_texts
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.targets.guided import guide
from models.targets.load import load_target
from models.training.checkpoint import states
from models.training.engines.worker import Worker
from models.training.kind import SCORE, Samples
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan, TrainingStep
from tests.models.drafting.test_image_draft_model import RASTER, SIZE, VOCAB, requests, save

GUIDANCE = 1.6


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return save(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def images(target, tmp_path_factory):
    """What the target makes under guidance, as texts of a class and its tokens."""
    loop = build_loop(EngineConfig(target=target, guidance=GUIDANCE, batch_size=12))
    given = requests(count=24)
    found = {result.id: result.tokens for result in loop.run(given)}
    texts = [Text(tokens=(*r.prompt, *found[r.id]), num_prompt=1) for r in given]
    file = tmp_path_factory.mktemp("images") / "images.parquet"
    write_texts(file, texts)
    return str(file)


def training(target, file, worker=None, **values):
    lessons = DraftLessons(
        kind="model",
        target=target,
        files=(file,),
        course=Course(depth=3, kept=4, exam_tokens=SIZE, match_from=16),
        length=1 + SIZE,
        seed=1,
        guidance=GUIDANCE,
        about={"guidance": GUIDANCE},
    )
    made = build_drafter(replace(lessons, **values), worker or Worker())
    return TrainingStep(made, TrainingPlan(steps=8, batch=4, rate=1e-2, seed=1))


def test_the_laws_to_learn_are_those_of_guided_decoding(target):
    teacher = load_teacher(Path(target), guidance=GUIDANCE)
    text = Text(tokens=(VOCAB + 2, *range(SIZE)), num_prompt=1)
    laws = teacher.laws(teacher.states(batch_of([text], np.arange(1)), np.arange(1))[0, :, -1])
    guided = guide(load_target(target, dtype=torch.float32), GUIDANCE)
    batch = chains(np.arange(1), [list(text.tokens)])
    logits = guided.score(guided.new_cache(1, 1 + SIZE), batch).logits
    torch.testing.assert_close(laws, logits.log_softmax(-1), rtol=1e-4, atol=1e-5)


def test_a_resumed_training_is_the_undisturbed_one_to_the_bit(tmp_path, target, images):
    whole = training(target, images)
    losses = [whole.step()["loss"] for _ in range(8)]
    first = training(target, images)
    for _ in range(5):
        first.step()
    save_state(tmp_path, first, {"a": 1})
    second = training(target, images)
    load_state(states(tmp_path)[-1], second, {"a": 1})
    assert [second.step()["loss"] for _ in range(3)] == losses[5:]
    for a, b in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("width", [None, 16])
def test_it_learns_and_its_export_goes_on(tmp_path, target, images, width):
    """The exams run in the real loop, with guidance."""
    made = training(target, images, width=width)
    every = Samples(numbers=np.arange(16), records=np.arange(16))
    before, first = made.examine(), made.kind.losses(made.kind.model, every)["loss"].item()
    for _ in range(8):
        made.step()
    after, last = made.examine(), made.kind.losses(made.kind.model, every)["loss"].item()
    assert last < first
    assert after["agreement"] > before["agreement"]
    assert made.best.score == max(before[SCORE], after[SCORE])
    assert all(1 <= each["accepted_length_t1"] <= 4 for each in (before, after))
    made.kind.export(made.average, tmp_path / "drafter")
    about = json.loads((tmp_path / "drafter" / "drafter.json").read_text())
    assert about == {"kind": "model", "guidance": GUIDANCE, "depth": 3}
    again = training(target, images, start=str(tmp_path / "drafter"))
    found = again.kind.losses(again.kind.model, every)["loss"].item()
    assert found == pytest.approx(made.kind.losses(made.average, every)["loss"].item(), rel=1e-5)


def test_training_and_drafting_have_the_same_logits(tmp_path, target, images):
    made = training(target, images)
    made.step()
    made.kind.export(made.average, tmp_path / "drafter")
    tokens = torch.tensor([[VOCAB + 1, *range(SIZE)]])
    drafter = load_target(tmp_path / "drafter", dtype=torch.float32)
    batch = chains(np.arange(1), tokens.tolist())
    found = drafter.score(drafter.new_cache(1, 1 + SIZE), batch).logits
    with torch.no_grad():
        expected = made.average(tokens, torch.zeros(0))[0][0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_target_of_one_layer_is_its_own_draft_model(tmp_path):
    """A new one begins with the target's input, first layer and output."""
    small = save(tmp_path / "target", replace(RASTER, num_layers=1))
    rng = np.random.default_rng(0)
    rows = rng.integers(0, VOCAB, (6, SIZE)).tolist()
    write_texts(tmp_path / "t.parquet", [Text(tokens=(VOCAB, *r), num_prompt=1) for r in rows])
    made = training(small, str(tmp_path / "t.parquet"), guidance=1.0)
    figures = made.examine()
    assert figures["agreement"] == pytest.approx(1, abs=1e-4)
    assert figures["accepted_length_t1"] == SIZE / (SIZE // 4)


@pytest.mark.parametrize("kind", ["medusa", "hydra", "eagle"])
def test_other_kinds_are_refused(target, images, kind):
    with pytest.raises(UnsupportedCheckpoint, match=f"are of kind 'model', not '{kind}'"):
        training(target, images, kind=kind)


def test_what_cannot_be_a_draft_model_is_refused(tmp_path, target, images):
    with pytest.raises(UnsupportedCheckpoint, match="a width of 18 is not a multiple of 4"):
        training(target, images, width=18)
    other = save(tmp_path / "other", replace(RASTER, num_classes=4))
    with pytest.raises(UnsupportedCheckpoint, match="the draft has 4 classes"):
        training(target, images, start=other)

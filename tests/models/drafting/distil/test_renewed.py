"""A training whose texts are renewed (`--renew`), without Ray: the same if it is interrupted."""

import numpy as np
import pytest
import torch

from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.kind import Course
from models.drafting.distil.texts import Text, write_texts
from models.training.checkpoint import states
from models.training.engines.worker import Worker
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan, TrainingStep
from tests.models.drafting.heads.random_heads import write_target

SOME = 12  # tokens that can be drafted
KEPT = 2  # texts for exams, the same in both generations
PLAN = TrainingPlan(steps=10, batch=4, rate=1e-2, seed=1)
BOUNDARY, EXAM_EVERY = 5, 2


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return str(write_target(tmp_path_factory.mktemp("target")))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of two generations, which have other tokens and another number of texts."""
    folder, chance = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    exam = [Text(tokens=tuple(range(1, 15)), num_prompt=4)] * KEPT
    found = []
    for number, (first, count) in enumerate(((1, 9), (25, 7))):
        texts = [
            Text(tokens=tuple(chance.integers(first, first + 24, size).tolist()), num_prompt=4)
            for size in chance.integers(10, 24, count)
        ]
        file = folder / f"{number}.parquet"
        write_texts(file, [*texts, *exam])
        found.append(str(file))
    return found


def begun(folder, kind, target, file, first, some):
    """A training of one generation, from the newest state on."""
    lessons = DraftLessons(
        kind=kind,
        target=target,
        files=(file,),
        first=(first,),
        course=Course(depth=3, kept=KEPT, exam_tokens=6, match_from=28),
        length=24,
        seed=1,
        draft_vocab=some,
    )
    made = TrainingStep(build_drafter(lessons, Worker()), PLAN)
    if found := states(folder):
        load_state(found[-1], made, {"a": 1})
    return made


def trained(folder, kind, target, files, some, *, stops=()):
    """Losses, exams and the last state; it begins anew after each of the steps `stops`."""
    losses, exams, ids = [], [], []
    for file, end in zip(files, (BOUNDARY, PLAN.steps), strict=True):
        for stop in [*(step for step in stops if end - BOUNDARY < step < end), end]:
            made = begun(folder, kind, target, file, files[0], some)
            ids.append(getattr(made.kind.model, "ids", None))
            while made.done < stop:
                losses.append(made.step()["loss"])
                if made.done % EXAM_EVERY == 0:
                    exams.append(made.examine())
            save_state(folder, made, {"a": 1})
    assert some is None or all(torch.equal(each, ids[0]) for each in ids)
    return losses, exams, {f.name: f.read_bytes() for f in states(folder)[-1].iterdir()}


@pytest.mark.parametrize(("kind", "some"), [("model", None), ("medusa", SOME), ("eagle", SOME)])
def test_a_renewed_training_goes_on_to_the_bit(tmp_path, target, files, kind, some):
    losses, exams, state = trained(tmp_path / "whole", kind, target, files, some)
    assert (len(losses), len(exams)) == (PLAN.steps, PLAN.steps // EXAM_EVERY)
    assert "best.safetensors" in state
    found = trained(tmp_path / "parts", kind, target, files, some, stops=(3, 8))
    assert found[0] == losses
    assert found[1] == exams
    assert found[2] == state
    old = begun(tmp_path / "old", kind, target, files[0], files[0], some)
    on_first = [old.step()["loss"] for _ in range(BOUNDARY + 1)]
    assert on_first[:-1] == losses[:BOUNDARY]
    assert on_first[-1] != losses[BOUNDARY]


@pytest.mark.parametrize("kind", ["medusa", "eagle"])
def test_without_the_first_texts_the_tokens_would_be_others(tmp_path, target, files, kind):
    first, own = (
        begun(tmp_path, kind, target, files[1], file, SOME).kind.model.ids for file in files
    )
    assert not torch.equal(first, own)

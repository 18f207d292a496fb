"""States and laws that come from elsewhere: the same training, asked in turn, without a target."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from models.drafting.distil import build as building
from models.drafting.distil.build import DraftLessons, build_drafter, network_of, target_config
from models.drafting.distil.kind import Course
from models.drafting.distil.reading import need_of, read
from models.drafting.distil.streamed import Stream, taps_of
from models.drafting.distil.teacher import load_teacher
from models.drafting.distil.texts import Text, write_texts
from models.training.ahead import Ahead, Window
from models.training.checkpoint import states
from models.training.engines.replicas import Replicas
from models.training.engines.worker import Worker
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan, TrainingStep
from tests.models.drafting.heads.random_heads import write_target

KINDS = ["model", "medusa", "hydra", "eagle"]
SOME = 12  # tokens that can be drafted
PLAN, PARTS, WINDOW = TrainingPlan(steps=6, batch=4, rate=1e-2, seed=1), 2, 3


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = [
        Text(tokens=tuple(rng.integers(1, 50, size).tolist()), num_prompt=4)
        for size in rng.integers(8, 24, 15)
    ]
    found = tmp_path_factory.mktemp("texts") / "texts.parquet"
    write_texts(found, texts)
    return str(found)


class InProcess:
    """Readers that answer when they are waited for, as late as can be."""

    def __init__(self, lessons):
        target = Path(lessons.target)
        network, _ = network_of(lessons, target, target_config(target))
        self._teacher = load_teacher(target, taps_of(network), lessons.guidance)
        some = lessons.draft_vocab is not None
        self._need = need_of(lessons.kind, len(taps_of(network)), some=some)
        self.asked = self.open = self.most = 0
        self.nbytes = 0

    def read(self, texts, vocabulary=None):
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)

        def wait():
            self.open -= 1
            reading = read(self._teacher, texts, self._need, vocabulary)
            self.nbytes = max(self.nbytes, reading.states.nbytes + reading.laws.nbytes)
            return reading

        return wait

    def examine(self, trial, files):
        assert "drafter.json" in files
        with tempfile.TemporaryDirectory() as made:
            for name, data in files.items():
                (Path(made) / name).write_bytes(data)
            return self._teacher.examine(trial, Path(made))


def lessons_of(kind, target, file, **values):
    course = Course(depth=3, kept=4, exam_tokens=4, match_from=16)
    return DraftLessons(
        kind=kind, target=str(target), files=(file,), course=course, length=24, seed=1, **values
    )


def training(lessons, stream=None, steps=PLAN):
    made = build_drafter(lessons, Worker(), stream)
    return TrainingStep(made, steps, None, lambda m: Replicas(m, Worker(), accumulate=PARTS))


def streamed(lessons, readers):
    return Stream(readers=readers, plan=PLAN, until=PLAN.steps, window=WINDOW, accumulate=PARTS)


@pytest.mark.parametrize(
    ("kind", "some"),
    [*((kind, None) for kind in KINDS), *((kind, SOME) for kind in KINDS if kind != "model")],
)
def test_streamed_states_are_recomputed_ones_to_the_bit(monkeypatch, target, file, kind, some):
    """Losses and weights; at most WINDOW steps are asked ahead; each part is asked once."""
    lessons = lessons_of(kind, target, file, draft_vocab=some)
    plain = training(lessons)
    losses = [plain.step()["loss"] for _ in range(PLAN.steps)]
    readers = InProcess(lessons)
    monkeypatch.setattr(building, "load_teacher", None)  # no target in the training
    made = training(lessons, streamed(lessons, readers))
    assert [made.step()["loss"] for _ in range(PLAN.steps)] == losses
    for a, b in zip(plain.average.parameters(), made.average.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (readers.asked, readers.open) == (PLAN.steps * PARTS, 0)
    assert readers.most == WINDOW * PARTS
    sizes = target_config(target)
    columns = sizes.vocab_size if some is None else SOME + 1
    room = need_of(kind, 3, some=some is not None).num_bytes(
        tokens=PLAN.batch // PARTS * 24,
        written=PLAN.batch // PARTS * 20,
        width=sizes.width,
        vocab_size=columns,
    )
    assert readers.nbytes <= room


def test_a_resumed_one_asks_from_its_step_on(tmp_path, target, file):
    lessons = lessons_of("eagle", target, file)
    whole = training(lessons)
    losses = [whole.step()["loss"] for _ in range(PLAN.steps)]
    first = training(lessons, streamed(lessons, InProcess(lessons)))
    for _ in range(4):
        first.step()
    save_state(tmp_path, first, {"a": 1})
    readers = InProcess(lessons)
    second = training(lessons, streamed(lessons, readers))
    load_state(states(tmp_path)[-1], second, {"a": 1})
    assert [second.step()["loss"] for _ in range(2)] == losses[4:]
    assert readers.asked == 2 * PARTS


@pytest.mark.parametrize(("kind", "some"), [("eagle", None), ("medusa", SOME)])
def test_exams_have_the_figures_of_a_target_that_is_here(target, file, kind, some):
    lessons = lessons_of(kind, target, file, draft_vocab=some)
    plain, made = training(lessons), training(lessons, streamed(lessons, InProcess(lessons)))
    expected, found = plain.examine(), made.examine()
    names = ("agreement", "acceptance", "same_likeliest", "length_by_laws_t1")
    assert [found[name] for name in names] == [expected[name] for name in names]
    assert found == expected


def test_the_parts_of_all_workers_are_the_batch():
    plan = TrainingPlan(steps=3, batch=12, seed=5)
    for world, parts in ((1, 1), (2, 3), (4, 1)):
        found = [
            Ahead(
                plan=plan, until=3, num_records=7, rank=rank, world=world, accumulate=parts
            ).parts(2)
            for rank in range(world)
        ]
        numbers = [n for own in found for part in own for n in part.numbers.tolist()]
        assert numbers == list(range(24, 36))
        assert all(len(own) == parts for own in found)


def test_a_window_that_lost_its_place_begins_anew():
    ahead = Ahead(plan=TrainingPlan(steps=6, batch=2), until=6, num_records=9)
    asked = []

    def ask(part):
        asked.append(int(part.numbers[0]) // 2)
        return lambda: int(part.numbers[0]) // 2

    window = Window(ahead, ask, size=2)
    (at,) = ahead.parts(1)
    assert window.take(at) == 1
    (at,) = ahead.parts(4)
    assert window.take(at) == 4
    (at,) = ahead.parts(5)
    assert window.take(at) == 5
    assert asked == [1, 2, 3, 4, 5]

"""Students of next-scale targets: the target where maps are known, and what a place depends on."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.errors import UnsupportedCheckpoint
from models.sampling.flow import FlowMap
from models.students.about import is_student
from models.students.checkpoint import load_student, save_student
from models.students.config import MadeFor
from models.students.kind import StudentKind, starts_of
from models.students.methods import TWO_HEAD
from models.students.networks.scale import ScaleStudent
from models.students.pairs import Records, make_pairs
from models.students.prior import token_shares
from models.students.sample import image_noise, sample
from models.students.start import config_of, frozen, student_of
from models.students.teacher import laws, load_teacher
from models.targets.load import load_target
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.tokenizers import TOKENIZER_FOLDER
from models.training.step import TrainingPlan, TrainingStep
from tests.models.tokenizers.tiny_images import SCALES, VOCABULARY, scales

HERE = MadeFor(path="targets/scale", digest="c" * 32)
COUNT = sum(side**2 for side in SCALES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    torch.manual_seed(1)
    config = NextScaleConfig(
        vocab_size=VOCABULARY, code_width=4, num_classes=5, scales=SCALES, width=32,
        inner_width=48, num_layers=2, num_heads=2,
    )  # fmt: skip
    model = NextScaleModel(config)
    with torch.no_grad():
        model.head.weight *= 20
    model.save(folder, torch.float32)
    scales().save(folder / TOKENIZER_FOLDER)
    return folder


@pytest.fixture(scope="module")
def teacher(folder):
    return load_teacher(folder)


@pytest.fixture(scope="module")
def student(teacher):
    prior = torch.rand(5, COUNT, VOCABULARY).softmax(-1)
    return student_of(teacher, config_of(teacher, HERE), prior).eval().requires_grad_(False)


def inputs(seed=1, count=4):
    generator = torch.Generator().manual_seed(seed)
    tokens, guesses = torch.randint(VOCABULARY, (2, count, COUNT), generator=generator)
    classes = torch.randint(5, (count,), generator=generator)
    return classes, tokens, torch.randn(count, COUNT, 4, generator=generator), guesses


def all_from(value, count=4):
    return torch.full((count,), value)


def test_with_all_maps_known_it_is_the_teacher(teacher, student):
    classes, tokens, noise, guesses = inputs()
    found = student(classes, tokens, noise, guesses, all_from(COUNT))
    assert torch.equal(found, laws(teacher, classes, tokens))


def test_the_teachers_laws_are_the_targets(folder, teacher):
    """Of the first map, which depends on the class alone."""
    from models.requests.canvas import Canvas
    from models.requests.request import Request, Sampling
    from models.schedules.feed import pack

    target = load_target(folder, dtype=torch.float32)
    sampling = Sampling(max_tokens=COUNT)
    canvas = Canvas(Request(id="a", prompt=(VOCABULARY + 2,), sampling=sampling, seed=0), COUNT)
    batch = pack(target.feed([canvas], [target.schedule.next(canvas)]))
    wanted = target.score(target.new_cache(1, 1 + COUNT), batch).logits
    tokens = torch.zeros(1, COUNT, dtype=torch.int64)
    found = laws(teacher, torch.tensor([2]), tokens)[0, : len(wanted)]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("start", [0, 1, 5])
def test_a_law_depends_on_earlier_maps_only(student, start):
    classes, tokens, noise, guesses = inputs()
    before = student(classes, tokens, noise, guesses, all_from(start))
    noise[:, 6], guesses[:, 7] = noise[:, 6] + 1, (guesses[:, 7] + 1) % VOCABULARY
    after = student(classes, tokens, noise, guesses, all_from(start))
    end = student.config.bounds[2]  # of the map that has places 6 and 7
    assert torch.equal(before[:, :end], after[:, :end])
    assert (before[:, end:] != after[:, end:]).any(-1).all()
    some = student(classes, tokens, noise, guesses, all_from(start), end)
    torch.testing.assert_close(some, after[:, :end])


def test_known_maps_read_tokens_and_the_others_noise(student):
    classes, tokens, noise, guesses = inputs()
    bound = student.config.bounds[1]
    whole = student(classes, tokens, noise, guesses, all_from(bound))
    tokens[:, bound:] += 1  # unknown: not read
    noise[:, :bound], guesses[:, :bound] = 0, 0  # known: not read
    found = student(classes, tokens % VOCABULARY, noise, guesses, all_from(bound))
    assert torch.equal(found, whole)


def test_passes_decide_whole_maps(student):
    chart, noise = FlowMap(student.codebook), image_noise(np.arange(4), COUNT, 4)
    classes = torch.arange(4)
    one = sample(student, chart, classes, noise, steps=1)
    two = sample(student, chart, classes, noise, steps=2)
    half = student.config.bounds[len(SCALES) // 2 - 1]
    assert torch.equal(one[:, :half], two[:, :half])
    assert frozen(student) is student
    most = sample(student, chart, classes, noise, steps=len(SCALES))
    assert most.shape == (4, COUNT)


def test_as_many_passes_as_maps_are_the_targets_own_decoding(teacher, student):
    """The last pass of each map is the teacher's: all earlier maps are known."""
    chart, noise = FlowMap(student.codebook), image_noise(np.arange(4), COUNT, 4)
    classes, tokens = torch.arange(4), torch.zeros(4, COUNT, dtype=torch.int64)
    bounds = (0, *student.config.bounds, COUNT)
    for start, end in pairwise(bounds):
        logits = laws(teacher, classes, tokens)[:, start:end].flatten(0, 1)
        found = chart.of_logits(logits, noise[:, start:end].flatten(0, 1))
        tokens[:, start:end] = found.view(4, -1)
    assert torch.equal(sample(student, chart, classes, noise, steps=len(SCALES)), tokens)


def test_training_starts_at_maps_and_lowers_the_loss(teacher):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (24, COUNT), generator=generator)
    classes = torch.arange(24) % 5
    records = Records(classes=classes, tokens=tokens, seeds=np.arange(24))
    prior = token_shares(classes, tokens, num_classes=5, vocab_size=VOCABULARY)

    def teach(classes, tokens):
        return laws(teacher, classes, tokens)

    pairs = make_pairs(records, teach, FlowMap(teacher.codebook), prior)
    made = student_of(teacher, config_of(teacher, HERE), prior)
    training = TrainingStep(
        StudentKind(made, teach, pairs), TrainingPlan(steps=30, batch=24, rate=3e-3)
    )
    losses = [training.step()["loss"] for _ in range(30)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    starts = starts_of(np.arange(400), 0, made.config.bounds)
    assert set(starts.tolist()) == {0, *made.config.bounds}
    assert 0.4 < (starts == 0).double().mean() < 0.6


def test_a_checkpoint_gives_it_back(folder, student, tmp_path):
    save_student(student, tmp_path / "s", tokenizer=folder / TOKENIZER_FOLDER)
    assert is_student(tmp_path / "s")
    loaded = load_student(tmp_path / "s")
    assert isinstance(loaded, ScaleStudent)
    assert loaded.config == student.config
    arguments = (*inputs(), all_from(0))
    assert torch.equal(loaded(*arguments), student(*arguments))
    with pytest.raises(UnsupportedCheckpoint, match=r"'targets/scale'.* not for 'elsewhere'"):
        loaded.config.refuse_another(MadeFor(path="elsewhere", digest="d" * 32))


def test_it_has_no_two_heads(teacher):
    with pytest.raises(UnsupportedCheckpoint, match="method is 'two-head'; a student of a next-"):
        config_of(teacher, HERE, method=TWO_HEAD)

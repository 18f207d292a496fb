"""The two-headed student: sets that it learns to sample in one pass, and what its places see."""

import json

import numpy as np
import pytest
import torch

from models.errors import UnsupportedCheckpoint
from models.sampling.flow import FlowMap
from models.students.checkpoint import load_student, save_student
from models.students.config import StudentConfig
from models.students.losses import Given, loss_of_heads, pictures_of
from models.students.methods import TWO_HEAD
from models.students.networks.two_head import TwoHeadStudent
from models.students.sample import image_noise, sample
from models.students.start import frozen, student_of
from models.tokenizers import TOKENIZER_FOLDER
from tests.models.students.tables import CODES, EQUAL, PARITY, training_of
from tests.models.students.test_known_answers import share_right
from tests.models.students.test_network import CONFIG, HERE, inputs, teacher
from tests.models.tokenizers.tiny_images import grid

__all__ = ["teacher"]  # fixture


@pytest.fixture(scope="module")
def student(teacher):
    said = StudentConfig.of(CONFIG, HERE, method=TWO_HEAD)
    made = student_of(teacher, said, torch.rand(3, 12, 24).softmax(-1))
    for weight in (made.kind.weight, made.modulation.weight):
        torch.nn.init.normal_(weight, std=0.1)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("case", "sizes", "least"),
    [
        (EQUAL, {"steps": 300}, 0.99),
        (PARITY, {"steps": 400, "width": 64, "count": 4000, "rate": 5e-3}, 0.97),
    ],
    ids=["equal", "parity"],
)
def test_it_is_right_in_one_pass(case, sizes, least):
    training = training_of(case, method=TWO_HEAD, **sizes)
    for _ in range(sizes["steps"]):
        training.step()
    learned, classes = training.average.eval(), torch.zeros(2000, dtype=torch.int64)
    noise = image_noise(np.arange(10_000, 12_000), case[1], 1)
    for steps in (1, 2):
        tokens = sample(learned, FlowMap(CODES), classes, noise, steps=steps)
        assert share_right(tokens, case) >= least
        counts = torch.bincount(tokens[:, 0], minlength=2).double() / len(tokens)
        assert counts.tolist() == pytest.approx([0.5, 0.5], abs=0.05)


def test_a_place_sees_its_own_noise_and_no_later(student):
    classes, tokens, noise, _ = inputs()
    starts = torch.full((5,), 3)
    before = student(classes, tokens, noise, starts)
    noise[:, 7] += 1
    after = student(classes, tokens, noise, starts)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, :7], b[:, :7])
        assert (a[:, 7:] != b[:, 7:]).any(-1).all()


def test_known_places_read_tokens_and_keep_them(student):
    classes, tokens, noise, _ = inputs()
    starts = torch.tensor([0, 3, 6, 11, 12])
    found = student.decide(classes, tokens, noise, starts)
    for row, start in enumerate(starts.tolist()):
        assert torch.equal(found[row, :start], tokens[row, :start])
        noise[row, :start] = 0
        tokens[row, start:] = 0
    assert torch.equal(student.decide(classes, tokens, noise, starts), found)


def test_the_first_half_is_of_the_head_over_codes(student):
    classes, tokens, noise, _ = inputs()
    starts = torch.zeros(5, dtype=torch.int64)
    logits, vectors = student(classes, tokens, noise, starts)
    found = student.decide(classes, tokens, noise, starts)
    assert torch.equal(found[:, :6], logits.argmax(-1)[:, :6])
    far = torch.cdist(vectors[:, 6:], student.codebook[None])
    assert torch.equal(found[:, 6:], far.argmin(-1))


def test_a_checkpoint_gives_it_back(student, tmp_path):
    save_student(student, tmp_path / "s")
    loaded = load_student(tmp_path / "s")
    assert isinstance(loaded, TwoHeadStudent)
    assert frozen(loaded) is loaded
    assert loaded.config == student.config
    for name, tensor in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_no_named_map_chooses_its_tokens(student, tmp_path):
    """Checkpoints of before say that the flow map does."""
    save_student(student, tmp_path / "s")
    file = tmp_path / "s" / "config.json"
    said = json.loads(file.read_text())
    assert said["noise"] == "two-head"
    file.write_text(json.dumps(said | {"noise": "flow:K20:v1"}))
    assert load_student(tmp_path / "s").config.noise == "two-head"
    file.write_text(json.dumps(said | {"noise": "gumbel"}))
    with pytest.raises(UnsupportedCheckpoint, match="known is flow:K20:v1 or two-head"):
        load_student(tmp_path / "s")


def test_pictures_are_part_of_the_loss(tmp_path):
    """Equal codes make no distance; others have a gradient, which is zero at known places."""
    tokenizer = grid()
    tokenizer.save(tmp_path / TOKENIZER_FOLDER)
    pictures, codes = pictures_of(tmp_path), tokenizer.codebook().detach()
    wanted = codes[torch.randint(len(codes), (3, tokenizer.num_tokens))]
    assert pictures(wanted, wanted).tolist() == [0, 0, 0]
    vectors = wanted.clone()
    vectors[1] = vectors[1].roll(1, 0)
    vectors.requires_grad_()
    distance = pictures(vectors, wanted)
    assert (distance > 0).tolist() == [False, True, False]
    distance.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad[1].abs().sum() > 0


def test_the_loss_counts_unknown_places_only(student):
    classes, tokens, noise, guesses = inputs()

    def loss(starts, pictures=None):
        given = Given(classes=classes, tokens=tokens, noise=noise, guesses=guesses, starts=starts)
        return loss_of_heads(student, given, student.codebook, pictures).item()

    assert loss(torch.full((5,), 12)) == 0
    none, some = torch.zeros(5, dtype=torch.int64), torch.full((5,), 6)
    assert loss(none) > loss(some) > 0
    seen = []

    def pictures(vectors, codes):
        seen.append((vectors, codes))
        return torch.ones(len(vectors))

    assert loss(some, pictures) == pytest.approx(loss(some) + 5 * 6, rel=1e-5)
    vectors, codes = seen[0]
    assert torch.equal(vectors[:, :6], codes[:, :6])
    assert not torch.equal(vectors[:, 6:], codes[:, 6:])

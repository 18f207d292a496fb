"""The student by `score` and its critic: how they start, what they see, how they are kept."""

import numpy as np
import pytest
import torch

from models.drafting.parallel.canvas import build
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.students.checkpoint import load_student, save_student
from models.students.config import StudentConfig
from models.students.methods import BY_SCORE
from models.students.networks.critic import critic_of
from models.students.networks.generator import Generator
from models.students.pairs import Records
from models.students.score_kind import ScoreKind
from models.students.start import frozen, student_of
from models.students.teacher import laws
from models.training.kind import LOSS, Samples
from tests.models.students.test_network import CONFIG, HERE, inputs, teacher

__all__ = ["teacher"]  # fixture


def made(teacher):
    said = StudentConfig.of(CONFIG, HERE, method=BY_SCORE)
    return student_of(teacher, said, torch.rand(3, 12, 24).softmax(-1)).eval()


@pytest.fixture(scope="module")
def student(teacher):
    """With weights that are not at their start."""
    found = made(teacher)
    for weight in (found.kind.weight, found.vector.weight):
        torch.nn.init.normal_(weight, std=0.1)
    return found.requires_grad_(False)


def test_it_starts_as_independent_sampling(teacher):
    classes, tokens, noise, guesses = inputs()
    start = torch.tensor([0, 3, 6, 11, 12])
    found = made(teacher).decide(classes, tokens, noise, guesses, start)
    known = torch.arange(12) < start[:, None]
    assert torch.equal(found, tokens.where(known, guesses))


def test_a_place_sees_its_own_noise_and_no_later(student):
    classes, tokens, noise, guesses = inputs()
    starts = torch.full((5,), 3)
    before = student(classes, tokens, noise, guesses, starts)
    noise[:, 7] += 1
    after = student(classes, tokens, noise, guesses, starts)
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any(-1).all()


def test_known_places_read_tokens_and_keep_them(student):
    classes, tokens, noise, guesses = inputs()
    starts = torch.tensor([0, 3, 6, 11, 12])
    found = student.decide(classes, tokens, noise, guesses, starts)
    for row, start in enumerate(starts.tolist()):
        assert torch.equal(found[row, :start], tokens[row, :start])
        noise[row, :start], guesses[row, :start] = 0, 0  # not read
        tokens[row, start:] = 0
    assert torch.equal(student.decide(classes, tokens, noise, guesses, starts), found)


def test_a_critic_starts_as_the_teacher(teacher):
    critic, (classes, tokens, _, _) = critic_of(teacher, made(teacher).config), inputs()
    found = critic(classes, tokens, torch.full((5,), 4))
    torch.testing.assert_close(found, laws(teacher, classes, tokens))


def test_where_the_critic_is_the_teacher_nothing_changes(teacher):
    """And otherwise it does."""
    student = made(teacher)
    classes, tokens, _, _ = inputs()
    records = Records(classes=classes, tokens=tokens, seeds=np.arange(5))
    critic = critic_of(teacher, student.config)
    kind = ScoreKind(student, critic, lambda c, t: laws(teacher, c, t), records)
    samples = Samples(numbers=np.arange(5), records=np.arange(5))
    for apart in (False, True):
        if apart:
            torch.nn.init.normal_(critic.raster.lm_head.weight, std=0.5)
        student.zero_grad()
        kind.losses(student, samples)[LOSS].backward()
        moved = student.vector.weight.grad.abs().max().item()
        assert (moved > 1e-3) if apart else (moved < 1e-5)
        assert all(weight.grad is None for weight in critic.parameters())


def test_a_checkpoint_gives_it_back(student, tmp_path):
    save_student(student, tmp_path / "s")
    loaded = load_student(tmp_path / "s")
    assert isinstance(loaded, Generator)
    assert frozen(loaded) is loaded
    assert loaded.config == student.config
    for name, tensor in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_it_is_no_drafter(student, tmp_path):
    save_student(student, tmp_path / "s")
    config = EngineConfig(target="t", drafter=str(tmp_path / "s"))
    with pytest.raises(UnsupportedCheckpoint, match="its method is 'score'; drafters are"):
        build(config, None)

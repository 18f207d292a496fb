"""Students by `score`: the mathematics in closed form, and sets that only a joint law can hit."""

import numpy as np
import pytest
import torch

from models.sampling.flow import FlowMap
from models.students.config import StudentConfig
from models.students.methods import BY_SCORE
from models.students.networks.critic import Critic
from models.students.noised import mean_given, noised, score, velocity
from models.students.pairs import Records
from models.students.sample import image_noise, sample
from models.students.score_kind import ScoreKind
from models.students.start import new_student
from tests.models.students.tables import CODES, EQUAL, MADE_FOR, PARITY, training_of
from tests.models.students.test_known_answers import share_right


@pytest.fixture(scope="module")
def mixture():
    """Laws over 7 codes, and noised vectors at all times: [40, ...] float64."""
    generator = torch.Generator().manual_seed(0)
    logits, codes = (torch.randn(*s, generator=generator).double() for s in ((40, 7), (7, 3)))
    logits[:, 2] = -torch.inf
    t = torch.linspace(0.15, 1, 40).double()[:, None]
    return logits, codes, torch.randn(40, 3, generator=generator).double(), t


def log_density(logits, codes, x, t):
    """Of x, up to a constant of each row, by the sum over codes."""
    far = (x[:, None] - (1 - t[..., None]) * codes).square().sum(-1)
    return (logits.log_softmax(-1) - far / (2 * t.square())).logsumexp(-1)


def test_the_score_is_the_gradient_of_the_density(mixture):
    logits, codes, x, t = mixture
    found, step = score(mean_given(logits, codes, x, t), x, t), 1e-5
    for axis in range(3):
        shift = step * torch.eye(3).double()[axis]
        up, down = (log_density(logits, codes, x + sign * shift, t) for sign in (1, -1))
        torch.testing.assert_close(found[:, axis], (up - down) / (2 * step), rtol=1e-5, atol=1e-5)


def test_the_velocity_is_that_of_the_flow_map(mixture):
    logits, codes, x, t = mixture
    chart = FlowMap(codes)
    for row in range(len(x)):
        wanted = chart._mean(x[row][None], logits[row][None], float(t[row]))
        found = mean_given(logits[row], codes, x[row], t[row])
        torch.testing.assert_close(found, wanted[0])
        speed = velocity(found, x[row], t[row])
        torch.testing.assert_close(x[row] - t[row] * speed, wanted[0])


def test_the_velocity_is_the_mean_of_noise_minus_code():
    """Of pairs that lead to the same place: regression on them has this optimum."""
    generator = torch.Generator().manual_seed(1)
    logits, t = torch.tensor([0.3, -0.5]).double(), torch.tensor([0.6]).double()
    codes = CODES.double()
    which = (torch.rand(400_000, generator=generator) < logits.softmax(-1)[1]).long()
    noise = torch.randn(400_000, 1, generator=generator).double()
    x = noised(codes[which], noise, t)
    found = velocity(mean_given(logits, codes, x, t), x, t)
    wanted = noise - codes[which]
    for low in (-1.0, -0.3, 0.4):
        there = (x > low) & (x < low + 0.5)
        error = (wanted[there] - found[there]).mean()
        assert abs(float(error)) < 4 * float(wanted[there].std()) / int(there.sum()) ** 0.5
    assert (found - wanted).square().mean() < (0.95 * found - wanted).square().mean()


def test_the_gradient_is_that_of_the_divergence():
    """Of the laws of noised vectors, against finite differences in the probability's parameter."""
    codes, t = CODES.double(), torch.tensor([0.7]).double()
    wanted = torch.tensor([0.8, -0.8]).double()
    grid = torch.linspace(-6, 6, 4001).double()[:, None]

    def density(points):
        """Of x, where the vector is one of these points, each with the same chance."""
        far = (grid - (1 - t) * points.view(1, -1)).square()
        return (-far / (2 * t.square())).exp().mean(-1) / (t * (2 * torch.pi) ** 0.5)

    def teacher():
        far = (grid - (1 - t) * codes.view(1, -1)).square()
        weights = wanted.softmax(-1)
        return ((-far / (2 * t.square())).exp() * weights).sum(-1) / (t * (2 * torch.pi) ** 0.5)

    def divergence(points):
        own = density(points)
        return torch.trapezoid(own * (own / teacher()).log(), grid[:, 0])

    points, step = torch.tensor([-0.9, 0.2, 1.3]).double(), 1e-4
    for place in range(3):
        shift = step * torch.eye(3).double()[place]
        slope = (divergence(points + shift) - divergence(points - shift)) / (2 * step)
        own = mean_given(torch.zeros(3).double(), points[:, None], grid, t)
        gap = own - mean_given(wanted, codes, grid, t)
        chance = (-(grid - (1 - t) * points[place]).square() / (2 * t.square())).exp()
        chance = chance[:, 0] / (t * (2 * torch.pi) ** 0.5)
        found = torch.trapezoid(chance * gap[:, 0], grid[:, 0]) * ((1 - t) / t) ** 2 / 3
        assert float(found) == pytest.approx(float(slope), rel=1e-4)


SIZES = {
    "equal": (EQUAL, {"steps": 50, "rate": 2e-3, "width": 32}),
    "parity": (PARITY, {"steps": 60, "rate": 1e-3, "width": 64}),
}


def trained(name):
    case, sizes = SIZES[name]
    training = training_of(case, method=BY_SCORE, **sizes)
    for _ in range(sizes["steps"]):
        training.step()
    return training.average.eval(), case


def tokens_of(student, case, steps=1):
    noise = image_noise(np.arange(10_000, 12_000), case[1], 1)
    classes = torch.zeros(2000, dtype=torch.int64)
    return sample(student, FlowMap(CODES), classes, noise, steps=steps)


@pytest.mark.parametrize("name", ["equal", "parity"])
def test_it_is_right_in_one_pass(name):
    student, case = trained(name)
    for steps in (1, 2):
        tokens = tokens_of(student, case, steps)
        assert share_right(tokens, case) >= 0.99
        shares = tokens[:, :-1].double().mean(0).tolist()
        assert shares == pytest.approx([0.5] * len(shares), abs=0.05)  # no collapse


def test_against_laws_of_single_places_half_is_wrong():
    """A control: the teacher's marginals in the place of its conditional laws."""
    _, length, last = EQUAL
    case = (lambda classes, tokens: torch.zeros(*tokens.shape, 2)), length, last
    training = training_of(case, method=BY_SCORE, steps=25, rate=1e-3)
    for _ in range(25):
        training.step()
    assert share_right(tokens_of(training.average, EQUAL), EQUAL) == pytest.approx(0.5, abs=0.1)


def test_an_exam_looks_at_patches_of_all_columns(monkeypatch):
    """Images that differ from the records in the right half only, on a grid of 16 x 16."""
    config = StudentConfig(
        target=MADE_FOR, vocab_size=2, code_width=1, num_classes=1, grid_width=16, grid_height=16,
        width=16, inner_width=32, num_layers=1, num_heads=2, method=BY_SCORE,
    )  # fmt: skip
    student = new_student(config, CODES, torch.full((1, 256, 2), 0.5))
    tokens = torch.randint(2, (256, 256), generator=torch.Generator().manual_seed(0))
    records = Records(
        classes=torch.zeros(256, dtype=torch.int64), tokens=tokens, seeds=np.arange(256)
    )
    kind = ScoreKind(student, Critic(config, CODES), lambda *given: None, records, kept=256)
    right = torch.arange(256) % 16 >= 8

    def decide(classes, given, *rest):
        return torch.where(right, 0, given)

    monkeypatch.setattr(student, "decide", decide)
    assert kind.exam(student)["distance"] > 0.1

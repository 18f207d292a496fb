"""Students with fewer layers than their target: which layers they start with."""

import pytest
import torch

from models.students.checkpoint import load_student, save_student
from models.students.config import MadeFor
from models.students.methods import BY_SCORE, FLOW_MAP, TWO_HEAD
from models.students.networks.critic import critic_of
from models.students.networks.layers import with_layers
from models.students.start import config_of, student_of
from models.students.teacher import ScaleTeacher, laws
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.training.raster import RasterConfig, RasterModel
from tests.models.tokenizers.tiny_images import SCALES, VOCABULARY, scales

HERE = MadeFor(path="targets/a", digest="a" * 32)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    config = RasterConfig(
        vocab_size=24, code_width=4, num_classes=3, grid_width=4, grid_height=3, width=32,
        inner_width=48, num_layers=6, num_heads=2, dropout=0.0,
    )  # fmt: skip
    return RasterModel(config, torch.randn(24, 4)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def scale_teacher():
    torch.manual_seed(1)
    config = NextScaleConfig(
        vocab_size=VOCABULARY, code_width=4, num_classes=5, scales=SCALES, width=32,
        inner_width=48, num_layers=6, num_heads=2,
    )  # fmt: skip
    return ScaleTeacher(NextScaleModel(config, dropout=0.0).eval(), scales())


@pytest.mark.parametrize("which", ["teacher", "scale_teacher"])
@pytest.mark.parametrize(
    ("count", "kept"), [(1, [0]), (2, [0, 5]), (3, [0, 2, 5]), (4, [0, 2, 3, 5])]
)
def test_the_kept_layers_are_spread_evenly(request, which, count, kept):
    whole = request.getfixturevalue(which)
    made = with_layers(whole, count)
    assert made.config.num_layers == len(made.model.layers) == count
    for layer, at in zip(made.model.layers, kept, strict=True):
        expected = whole.model.layers[at].state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in layer.state_dict().items())
    assert len(whole.model.layers) == 6


def test_all_layers_are_the_teacher_itself(teacher):
    assert with_layers(teacher, None) is with_layers(teacher, 6) is teacher


@pytest.mark.parametrize("count", [0, 7])
def test_more_than_there_are_is_an_error(teacher, count):
    with pytest.raises(ValueError, match=f"{count} layers: the teacher has 6"):
        with_layers(teacher, count)


@pytest.mark.parametrize("method", [FLOW_MAP, TWO_HEAD, BY_SCORE])
def test_a_student_says_how_many_it_has(teacher, method, tmp_path):
    start, prior = with_layers(teacher, 3), torch.rand(3, 12, 24).softmax(-1)
    made = student_of(start, config_of(start, HERE, method=method), prior)
    save_student(made, tmp_path / "student")
    back = load_student(tmp_path / "student")
    assert back.config.num_layers == len(back.raster.model.layers) == 3
    assert all(
        torch.equal(value, made.state_dict()[name]) for name, value in back.state_dict().items()
    )


def test_the_critic_keeps_all(teacher):
    start = with_layers(teacher, 2)
    critic = critic_of(teacher, config_of(start, HERE, method=BY_SCORE))
    tokens = torch.randint(24, (2, 12), generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 2])
    found = critic(classes, tokens, torch.full((2,), 12))
    assert torch.equal(found, laws(teacher, classes, tokens))

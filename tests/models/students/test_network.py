"""The student's network: the teacher where tokens are known; no place sees what comes later."""

import pytest
import torch

from models.errors import UnsupportedCheckpoint
from models.students.checkpoint import load_student, save_student
from models.students.config import MadeFor, StudentConfig
from models.students.start import student_of
from models.students.teacher import laws, load_teacher
from models.training.raster import RasterConfig, RasterModel

CONFIG = RasterConfig(
    vocab_size=24, code_width=4, num_classes=3, grid_width=4, grid_height=3, width=32,
    inner_width=48, num_layers=2, num_heads=2, dropout=0.0,
)  # fmt: skip
HERE = MadeFor(path="targets/a", digest="a" * 32)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    model = RasterModel(CONFIG, torch.randn(24, 4))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def student(teacher):
    prior = torch.rand(3, 12, 24).softmax(-1)
    made = student_of(teacher, StudentConfig.of(CONFIG, HERE), prior)
    return made.eval().requires_grad_(False)


def inputs(seed=1, count=5):
    generator = torch.Generator().manual_seed(seed)
    tokens, guesses = torch.randint(24, (2, count, 12), generator=generator)
    classes = torch.randint(3, (count,), generator=generator)
    return classes, tokens, torch.randn(count, 12, 4, generator=generator), guesses


def test_with_all_tokens_known_it_is_the_teacher(teacher, student):
    classes, tokens, noise, guesses = inputs()
    found = student(classes, tokens, noise, guesses, torch.full((5,), 12))
    assert torch.equal(found, laws(teacher, classes, tokens))


@pytest.mark.parametrize("start", [0, 5])
def test_a_law_depends_on_what_stands_before_it(student, start):
    classes, tokens, noise, guesses = inputs()
    starts = torch.full((5,), start)
    before = student(classes, tokens, noise, guesses, starts)
    noise[:, 7], guesses[:, 7] = noise[:, 7] + 1, (guesses[:, 7] + 1) % 24
    after = student(classes, tokens, noise, guesses, starts)
    assert torch.equal(before[:, :8], after[:, :8])
    assert (before[:, 8:] != after[:, 8:]).any(-1).all()


def test_known_places_read_tokens_and_the_others_noise(student):
    classes, tokens, noise, guesses = inputs()
    starts = torch.full((5,), 6)
    whole = student(classes, tokens, noise, guesses, starts)
    tokens[:, 6:] += 1  # unknown: not read
    noise[:, :6], guesses[:, :6] = 0, 0  # known: not read
    assert torch.equal(student(classes, tokens % 24, noise, guesses, starts), whole)


def test_a_checkpoint_gives_the_student_back(student, tmp_path):
    save_student(student, tmp_path / "s")
    loaded = load_student(tmp_path / "s")
    assert loaded.config == student.config
    for name, tensor in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_checkpoint_in_half_precision_keeps_the_codebook(student, tmp_path):
    save_student(student, tmp_path / "s", dtype=torch.bfloat16)
    loaded = load_student(tmp_path / "s")
    assert torch.equal(loaded.codebook, student.codebook)
    for name, tensor in student.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, tensor, rtol=2**-8, atol=1e-6)


def test_another_target_is_refused_with_both_names(student):
    there = MadeFor(path="targets/b", digest="b" * 32)
    with pytest.raises(UnsupportedCheckpoint, match=r"'targets/a'.* not for 'targets/b'"):
        student.config.refuse_another(there)
    student.config.refuse_another(MadeFor(path="elsewhere", digest=HERE.digest))


def test_a_folder_without_a_student_is_refused(teacher, tmp_path):
    teacher.save(tmp_path, torch.float32)
    with pytest.raises(UnsupportedCheckpoint, match=r"holds no student: config\.json needs"):
        load_student(tmp_path)


def test_a_teacher_is_read_from_a_checkpoint(teacher, tmp_path):
    teacher.save(tmp_path, torch.float32)
    classes, tokens, _, _ = inputs()
    loaded = load_teacher(tmp_path)
    assert loaded.config == CONFIG
    assert torch.equal(laws(loaded, classes, tokens), laws(teacher, classes, tokens))
    guided = laws(loaded, classes, tokens, guidance=2.0)
    nothing = laws(loaded, torch.full_like(classes, 3), tokens)
    expected = nothing + 2 * (laws(loaded, classes, tokens) - nothing)
    torch.testing.assert_close(guided, expected)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("model_type", "llama", "students are made of raster targets"),
        ("code_width", None, "code_width is None"),
        ("num_key_value_heads", 1, "num_key_value_heads is 1"),
        ("rope_theta", 5.0, "rope_theta is 5.0; students are made of targets with 10000.0"),
        ("max_position_embeddings", 12, "11 places do not fill rows of 4"),
    ],
)
def test_a_target_of_another_kind_is_refused(teacher, tmp_path, name, value, told):
    import json

    teacher.save(tmp_path, torch.float32)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(UnsupportedCheckpoint, match=told):
        load_teacher(tmp_path)

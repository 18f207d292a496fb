"""A student as a drafter: the tokens of plain decoding, from a start that the student draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.drafting.draft import Shape
from models.drafting.parallel.canvas import CanvasDrafter
from models.drafting.sizing.sizing import FixedSize
from models.engine import EngineConfig, build_loop
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.loop.token_loop import TokenLoop
from models.registry import FLOW, GUMBEL, STUDENT, drafter_entry
from models.requests.request import Request, Sampling
from models.sampling.flow import FlowMap
from models.students.checkpoint import save_student
from models.students.config import MadeFor, StudentConfig
from models.students.networks.frozen import FrozenStudent
from models.students.sample import image_noise, sample
from models.students.start import student_of
from models.training.raster import RasterModel
from tests.models.drafting.test_jacobi import RASTER

SIZE, VOCAB = RASTER.num_tokens, RASTER.vocab_size
OPTIONS = ({}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 9}, {"top_p": 0.8})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A target, and a student of it that has learned nothing yet."""
    target, student = (tmp_path_factory.mktemp(name) for name in ("target", "student"))
    torch.manual_seed(3)
    model = RasterModel(RASTER, F.normalize(torch.randn(VOCAB, 4), dim=-1)).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.25)
    model.save(target, torch.float32)
    said = StudentConfig.of(RASTER, MadeFor(path=str(target), digest="a" * 32))
    prior = torch.randn(3, SIZE, VOCAB).softmax(-1)
    save_student(student_of(model, said, prior), student)
    return {"target": str(target), "student": str(student)}


def requests(noise, count=12):
    return [
        Request(
            id=str(i), prompt=(VOCAB + i % 3,), seed=i, noise=noise,
            sampling=Sampling(max_tokens=SIZE, **OPTIONS[i % len(OPTIONS)]),
        )
        for i in range(count)
    ]  # fmt: skip


def decode(folders, noise, given=None, **options):
    loop = build_loop(EngineConfig(target=folders["target"], **options))
    results = loop.run(requests(noise) if given is None else given)
    return {r.id: r.tokens for r in results}, loop


@pytest.mark.parametrize("noise", [GUMBEL, FLOW])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_images_are_those_of_plain_decoding(folders, noise, guidance):
    plain, _ = decode(folders, noise, batch_size=1, guidance=guidance)
    drafter = {"drafter": folders["student"], "guidance": guidance}
    found, loop = decode(folders, noise, batch_size=5, **drafter)
    assert found == plain
    assert loop.rule == "match"
    assert loop.figures().accepted > 8
    some, _ = decode(folders, noise, batch_size=12, draft_tokens=3, **drafter)
    assert some == plain


@pytest.mark.parametrize("noise", [GUMBEL, FLOW])
def test_a_request_continues(folders, noise):
    """As after a death, with tokens made elsewhere; the student reads them."""
    plain, _ = decode(folders, noise, batch_size=4)
    given = [replace(r, generated=plain[r.id][: 1 + 5 * int(r.id) % 20]) for r in requests(noise)]
    found, _ = decode(folders, noise, given, batch_size=4, drafter=folders["student"])
    assert found == plain


class Perfect:
    """A student whose logits are the target's own for the right image."""

    def __init__(self, student, tokens):
        self.config, self.prior, self.codebook = student.config, student.prior, student.codebook
        self._student, self._tokens = student, tokens

    def __call__(self, classes, tokens, noise, guesses, starts):
        return self._student(classes, self._tokens, noise, guesses, torch.full_like(starts, SIZE))


@pytest.mark.parametrize("noise", [GUMBEL, FLOW])
def test_a_perfect_student_leaves_nothing_but_a_check(folders, noise):
    from models.students.checkpoint import load_student

    plain, loop = decode(folders, noise, batch_size=1)
    tokens = torch.tensor([plain[r.id] for r in requests(noise)])
    student = Perfect(FrozenStudent(load_student(folders["student"])), tokens)
    drafter = CanvasDrafter(student, name="perfect")
    sizes = {"rows": 12, "max_length": SIZE + 1, "scratch": 1 + SIZE}
    loop = TokenLoop(loop.target, drafter, FixedSize(Shape(depth=SIZE)), **sizes)
    results = loop.run(requests(noise))
    assert {r.id: r.tokens for r in results} == plain
    assert drafter.passes == 1
    assert loop.figures().rounds <= 2


def test_under_the_flow_map_it_draws_what_the_student_makes_alone(folders):
    from models.students.checkpoint import load_student

    student = FrozenStudent(load_student(folders["student"]))
    drafter = CanvasDrafter(student, name="student")
    loop = build_loop(EngineConfig(target=folders["target"], batch_size=3))
    sizes = {"rows": 3, "max_length": SIZE + 1, "scratch": 1 + SIZE}
    loop = TokenLoop(loop.target, drafter, FixedSize(Shape(depth=SIZE)), **sizes)
    for i in range(3):
        sampling = Sampling(max_tokens=SIZE)
        loop.submit(Request(id=str(i), prompt=(VOCAB + i,), seed=i, noise=FLOW, sampling=sampling))
    loop.step()
    noise = image_noise(np.arange(3), SIZE, 4)
    images = sample(student, FlowMap(student.codebook), torch.arange(3), noise, steps=1)
    drawn = drafter._canvases.images
    assert [drawn[str(i)].tolist() for i in range(3) if str(i) in drawn] == [
        image for i, image in enumerate(images.tolist()) if str(i) in drawn
    ]
    assert drawn


def test_a_students_folder_is_known(folders):
    assert drafter_entry(folders["student"]) is STUDENT
    assert drafter_entry(folders["target"]) is not STUDENT


def test_a_student_needs_match(folders):
    with pytest.raises(InvalidOption, match="verify='rejection' is not accepted: match, as"):
        EngineConfig(target=folders["target"], drafter=folders["student"], verify="rejection")


def test_a_student_of_other_codes_is_refused_with_both_names(folders, tmp_path):
    torch.manual_seed(9)
    RasterModel(RASTER, torch.randn(VOCAB, 4)).save(tmp_path, torch.float32)
    config = EngineConfig(target=str(tmp_path), drafter=folders["student"])
    with pytest.raises(
        UnsupportedCheckpoint, match=r"made for the target '.*/target[0-9]+' .*not those"
    ):
        build_loop(config)

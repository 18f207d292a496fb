"""A draft model of an image target: the images of plain decoding, with and without guidance."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from models.drafting.draft_models.build import own_guidance
from models.drafting.folder_kind import ABOUT
from models.engine import EngineConfig, build_loop
from models.errors import UnsupportedCheckpoint
from models.registry import FLOW, GUMBEL
from models.requests.request import Request, Sampling
from models.targets.image_tokens import same_images
from models.training.raster import RasterModel
from tests.models import checkpoints
from tests.models.drafting.test_jacobi import RASTER

SIZE, VOCAB = RASTER.num_tokens, RASTER.vocab_size
OPTIONS = ({}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 9}, {"top_p": 0.8})


def save(folder, config=RASTER, seed=3, codes=3):
    """A model whose logits are far from equal."""
    torch.manual_seed(codes)
    codebook = F.normalize(torch.randn(config.vocab_size, 4), dim=-1)
    torch.manual_seed(seed)
    model = RasterModel(config, codebook)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.25)
    model.save(folder, torch.float32)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A target, and a smaller draft model, which often guesses wrong."""
    target, draft = (tmp_path_factory.mktemp(name) for name in ("target", "draft"))
    return {"target": save(target), "draft": save(draft, replace(RASTER, num_layers=1), seed=4)}


def requests(noise=GUMBEL, count=12):
    return [
        Request(
            id=str(i), prompt=(VOCAB + i % 3,), seed=i, noise=noise,
            sampling=Sampling(max_tokens=SIZE, **OPTIONS[i % len(OPTIONS)]),
        )
        for i in range(count)
    ]  # fmt: skip


def decode(target, given=None, **options):
    loop = build_loop(EngineConfig(target=target, **options))
    results = loop.run(requests() if given is None else given)
    return {r.id: r.tokens for r in results}, loop.figures()


@pytest.mark.parametrize(("noise", "guidance"), [(GUMBEL, 1.0), (GUMBEL, 1.8), (FLOW, 1.8)])
def test_images_are_those_of_plain_decoding(folders, noise, guidance):
    """In batches of other sizes, so that requests move between rows of the caches."""
    given = requests(noise, count=8)
    plain, _ = decode(folders["target"], given, batch_size=1, guidance=guidance)
    shapes = [{"draft_tokens": 4}, {"draft_tokens": "auto"}]
    shapes += [{"draft_tokens": 3, "draft_width": 3, "draft_nodes": 6}]
    for size, shape in zip((1, 3, 8), shapes, strict=True):
        options = {"drafter": folders["draft"], "guidance": guidance, "batch_size": size, **shape}
        found, figures = decode(folders["target"], given, **options)
        assert found == plain
        assert figures.accepted > 0 or shape["draft_tokens"] == "auto"


def test_a_request_continues(folders):
    plain, _ = decode(folders["target"], batch_size=4)
    given = [replace(r, generated=plain[r.id][: 1 + 5 * int(r.id) % 20]) for r in requests()]
    found, _ = decode(folders["target"], given, drafter=folders["draft"], draft_tokens=4)
    assert found == plain


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_target_as_its_own_draft_is_always_right(folders, guidance):
    """So the draft model is guided as the target is."""
    options = {"draft_tokens": 3, "guidance": guidance}
    plain, _ = decode(folders["target"], guidance=guidance)
    found, figures = decode(folders["target"], drafter=folders["target"], **options)
    assert found == plain
    assert figures.accepted_length == SIZE / (SIZE // 4)


def test_a_draft_model_that_has_learned_guided_laws_is_not_guided(folders, tmp_path):
    draft = save(tmp_path)
    assert (own_guidance(draft, 2.5), own_guidance(draft, 1.0)) == (2.5, 1.0)
    for learned, expected in ((1.0, 2.5), (2.0, 1.0)):
        (tmp_path / ABOUT).write_text(json.dumps({"guidance": learned}))
        assert own_guidance(draft, 2.5) == expected
    options = {"drafter": draft, "draft_tokens": 3, "guidance": 2.5}
    found, figures = decode(folders["target"], **options)
    assert found == decode(folders["target"], guidance=2.5)[0]
    assert figures.accepted_length < SIZE / (SIZE // 4)


def test_rejection_has_images_of_the_targets_law(folders):
    options = {"drafter": folders["target"], "draft_tokens": 3, "verify": "rejection"}
    _, figures = decode(folders["target"], **options, guidance=2.0)
    assert figures.accepted == figures.drafted > 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_classes": 4}, "the draft has 4 classes and 24 tokens of 24 codes in rows of 4, the"),
        ({"grid_width": 8, "grid_height": 3}, "in rows of 8, the target 3 classes and 24 tokens"),
        ({"grid_height": 8}, "the draft has 3 classes and 32 tokens"),
        ({"vocab_size": 32}, "of 32 codes"),
        ({}, "their codebooks differ"),
    ],
)
def test_another_grid_is_refused_with_both_names(folders, tmp_path, change, told):
    draft = save(tmp_path, replace(RASTER, **change), codes=3 if change else 9)
    with pytest.raises(UnsupportedCheckpoint, match=told) as found:
        build_loop(EngineConfig(target=folders["target"], drafter=draft))
    assert repr(draft) in str(found.value)
    assert repr(folders["target"]) in str(found.value)


def test_images_and_texts_do_not_draft_for_each_other(folders, tmp_path):
    checkpoints.save(tmp_path, "llama3")
    for target, draft in ((folders["target"], str(tmp_path)), (str(tmp_path), folders["target"])):
        with pytest.raises(UnsupportedCheckpoint, match=r"token by token, '.*' does"):
            same_images(target, draft)
    same_images(str(tmp_path), str(tmp_path))

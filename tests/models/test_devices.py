"""Decoding on another device than the CPU: nothing is left on the CPU, and tokens are the same.

On the device of tests/models/accelerator.py, which refuses to mix devices, as CUDA does.
"""

from collections.abc import Iterator

import pytest
import torch

from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.hydra_head import write_hydra
from models.drafting.heads.medusa_head import write_medusa
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.registry import FLOW, GUMBEL
from models.requests.request import Request, Sampling
from models.students.checkpoint import save_student
from models.students.config import MadeFor
from models.students.start import config_of, student_of
from models.students.teacher import load_teacher
from models.targets.load import load_target
from tests.models.accelerator import accelerator
from tests.models.drafting.heads import random_heads
from tests.models.drafting.test_image_draft_model import SIZE, VOCAB, save
from tests.models.students.test_devices import scale_target
from tests.models.tokenizers.tiny_images import SCALES, VOCABULARY

OPTIONS = (
    {"temperature": 0.0},
    {"logprobs": 2},
    {"temperature": 0.7, "top_k": 9, "min_p": 0.01},
    {"top_p": 0.8, "presence_penalty": 0.5, "repetition_penalty": 1.2},
    {"logit_bias": {3: 2.0}},
)


@pytest.fixture
def device() -> Iterator[torch.device]:
    """Without deterministic algorithms alone, as in a target actor."""
    with accelerator() as found:
        yield found


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Targets and their drafters."""
    place = tmp_path_factory.mktemp("models")
    target = random_heads.write_target(place / "text")
    write_medusa(random_heads.medusa_head(), place / "medusa")
    write_hydra(random_heads.hydra_head(target), place / "hydra")
    write_eagle(
        random_heads.eagle_head(), place / "eagle", layout="speculators", target=target,
        draft_tokens=3,
    )  # fmt: skip
    save(place / "raster")
    teacher, here = load_teacher(place / "raster"), MadeFor(path="raster", digest="0" * 32)
    prior = torch.full((1, SIZE, VOCAB), 1 / VOCAB)
    save_student(student_of(teacher, config_of(teacher, here), prior), place / "student")
    (place / "scale").mkdir()
    scale_target(place / "scale")
    return place


def decoded(folder, device, requests, **options):
    """What each request wrote, with its target on this device."""
    target = load_target(folder, dtype=torch.float32, device=device)
    config = EngineConfig(target=str(folder), batch_size=3, memory="64MiB", **options)
    loop = build_loop(config, target=target)
    return {result.id: result.tokens for result in loop.run(requests)}, loop.figures()


def texts():
    return [
        Request(
            id=str(i), prompt=(1 + i, 7, 2), seed=i,
            sampling=Sampling(max_tokens=10, ignore_eos=True, **options),
        )
        for i, options in enumerate(OPTIONS)
    ]  # fmt: skip


def images(first, count, noise=GUMBEL):
    return [
        Request(
            id=str(i), prompt=(first + i % 3,), seed=i, noise=noise,
            sampling=Sampling(max_tokens=count, temperature=1.0 if i else 0.5),
        )
        for i in range(3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("drafter", "options"),
    [
        ("none", {}),
        ("text", {"draft_tokens": 3}),
        ("text", {"draft_tokens": 3, "verify": "rejection"}),
        ("text", {"draft_tokens": 2, "draft_width": 2}),
        ("medusa", {"draft_tokens": 2, "draft_width": 2}),
        ("hydra", {"draft_tokens": 2}),
        ("eagle", {"draft_tokens": 2, "draft_width": 2}),
    ],
)
def test_texts_are_those_of_the_cpu(folders, drafter, options, device):
    own = drafter if drafter == "none" else str(folders / drafter)
    cpu = torch.device("cpu")
    wanted, _ = decoded(folders / "text", cpu, texts(), drafter=own, **options)
    found, figures = decoded(folders / "text", device, texts(), drafter=own, **options)
    assert found == wanted
    assert (figures.draft_passes > 0) is (drafter != "none")


@pytest.mark.parametrize(
    ("drafter", "noise", "options"),
    [
        ("none", FLOW, {}),
        ("raster", GUMBEL, {"draft_tokens": 4}),
        ("student", GUMBEL, {}),
        ("jacobi", GUMBEL, {}),
        ("mc-sjd", GUMBEL, {"verify": "rejection"}),
    ],
)
def test_images_are_those_of_the_cpu(folders, drafter, noise, options, device):
    """With guidance."""
    own = str(folders / drafter) if drafter in ("raster", "student") else drafter
    options = options | {"drafter": own, "guidance": 1.5}
    given = images(VOCAB, SIZE, noise)
    wanted, _ = decoded(folders / "raster", torch.device("cpu"), given, **options)
    assert decoded(folders / "raster", device, given, **options)[0] == wanted


def test_maps_are_those_of_the_cpu(folders, device):
    given = images(VOCABULARY, sum(side**2 for side in SCALES))
    wanted, _ = decoded(folders / "scale", torch.device("cpu"), given, guidance=1.5)
    assert decoded(folders / "scale", device, given, guidance=1.5)[0] == wanted

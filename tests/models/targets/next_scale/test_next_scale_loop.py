"""The next-scale target through the token loop: its exact law, batches, guidance, previews."""

from itertools import product

import pytest
import torch

from models.drafting.draft import NOTHING
from models.drafting.sizing.sizing import FixedSize
from models.engine import EngineConfig, build_drafter, build_loop
from models.errors import InvalidOption, InvalidRequest, UnsupportedCheckpoint
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from models.targets.guided import GuidedTarget
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.targets.next_scale.scale_target import NextScaleTarget
from models.tokenizers.scales import ScalesConfig, ScaleTokenizer
from tests.models.targets.next_scale.test_next_scale import (
    CLASSES,
    LENGTH,
    model_of,
    request_of,
    target_of,
)
from tests.models.test_law import fit
from tests.models.tokenizers import tiny_images

CPU = torch.device("cpu")
VOCAB, SCALES, SIZE = 3, (1, 2), 5
SETTINGS = [
    {},
    {"temperature": 0.7, "top_p": 0.9},
    {"top_k": 5},
    {"temperature": 0},
    {"frequency_penalty": 0.5, "min_p": 0.02},
]


@pytest.fixture(scope="module")
def target() -> NextScaleTarget:
    return target_of(model_of())


def loop_of(target, rows=8):
    return TokenLoop(target, None, FixedSize(NOTHING), rows=rows, max_length=1 + LENGTH, scratch=1)


def requests(count):
    return [request_of(i, i % (CLASSES + 1), **SETTINGS[i % len(SETTINGS)]) for i in range(count)]


def tokens_of(results):
    return {result.id: result.tokens for result in results}


def tiny() -> tuple[NextScaleModel, ScaleTokenizer]:
    """Three codes, maps of 1 and 4 places."""
    torch.manual_seed(11)
    tokenizer = ScaleTokenizer(
        ScalesConfig(
            conv=tiny_images.CONV, image_size=4, vocab_size=VOCAB, code_width=4, scales=SCALES
        )
    )
    config = NextScaleConfig(
        vocab_size=VOCAB, code_width=4, num_classes=2, scales=SCALES, width=16, inner_width=24,
        num_layers=2, num_heads=2,
    )  # fmt: skip
    model = NextScaleModel(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model.requires_grad_(False), tokenizer.eval().requires_grad_(False)


@pytest.mark.usefixtures("little_noise_ahead")
def test_images_have_the_law_of_the_trained_module() -> None:
    """All 3**5 images by teacher forcing; a map's places are independent given those before."""
    model, tokenizer = tiny()
    images = torch.tensor(list(product(range(VOCAB), repeat=SIZE)))
    classes = torch.ones(len(images), dtype=torch.int64)
    logits = model(classes, tokenizer.inputs(images)).double()
    chances = logits.log_softmax(-1).gather(-1, images[..., None]).sum((1, 2)).exp()
    assert abs(float(chances.sum()) - 1) < 1e-6
    law = dict(zip(map(tuple, images.tolist()), chances.tolist(), strict=True))
    target = NextScaleTarget(
        model.config, model.state_dict(), tokenizer, dtype=torch.float32, device=CPU
    )
    loop = TokenLoop(target, None, FixedSize(NOTHING), rows=32, max_length=1 + SIZE, scratch=1)
    asked = Sampling(max_tokens=SIZE)
    results = loop.run(
        Request(id=str(s), prompt=(VOCAB + 1,), sampling=asked, seed=s) for s in range(3000)
    )
    assert fit([result.tokens for result in results], law) > 1e-3
    other = model(torch.zeros_like(classes), tokenizer.inputs(images)).double()
    chances = other.log_softmax(-1).gather(-1, images[..., None]).sum((1, 2)).exp()
    wrong = dict(zip(map(tuple, images.tolist()), chances.tolist(), strict=True))
    assert fit([result.tokens for result in results], wrong) < 1e-6


@pytest.mark.parametrize("guidance", [None, 2.0])
def test_batch_and_time_of_joining_change_nothing(target, guidance) -> None:
    if guidance is not None:
        target = GuidedTarget(target, scale=guidance, null_token=target.input_size - 1)
    asked = requests(34)
    alone = tokens_of(result for r in asked for result in loop_of(target, 1).run([r]))
    for rows in (8, 32):
        assert tokens_of(loop_of(target, rows).run(asked)) == alone
    late, results = loop_of(target, 5), []
    for request in asked:
        late.submit(request)
        results += late.step()
    assert tokens_of([*results, *late.run([])]) == alone
    assert len(set(alone.values())) > 30


def test_an_image_takes_one_pass_a_map(target) -> None:
    loop = loop_of(target)
    for result in loop.run(requests(8)):
        assert (result.target_passes, len(result.tokens)) == (4, LENGTH)
        label = "identical" if target.steady else "identical up to rounding"
        assert result.exactness == label
    assert loop.figures().target_passes == 4


def test_a_running_image_can_be_previewed(target) -> None:
    loop = loop_of(target, rows=2)
    loop.submit(request_of(0, 1))
    loop.step()
    loop.step()
    (running,) = loop._rows.running
    early = torch.tensor([running.generated])
    assert early.shape == (1, 5)  # maps of 1 and 4 places
    preview = target.tokenizer.decode_prefix(early)
    (whole,) = loop.run([])
    assert whole.tokens[:5] == tuple(early[0].tolist())
    assert preview.shape == target.tokenizer.decode(torch.tensor([whole.tokens])).shape


def test_a_folder_becomes_a_loop(target, tmp_path) -> None:
    model_of().save(tmp_path, torch.float32)
    tiny_images.scales().save(tmp_path / "tokenizer")
    folder = str(tmp_path)
    loop = build_loop(EngineConfig(target=folder, batch_size=4))
    assert loop.max_length == 1 + LENGTH
    assert loop.describe()["schedule"] == "scales"
    assert tokens_of(loop.run(requests(10))) == tokens_of(loop_of(target).run(requests(10)))
    guided = build_loop(EngineConfig(target=folder, guidance=2.0))
    assert tokens_of(guided.run(requests(10))) != tokens_of(loop_of(target).run(requests(10)))
    with pytest.raises(InvalidRequest, match="this target writes 30 tokens"):
        loop.submit(Request(id="a", prompt=(32,), sampling=Sampling(max_tokens=9)))
    with pytest.raises(InvalidOption, match=r"drafter='lookup'.*nothing to draft"):
        build_loop(EngineConfig(target=folder, drafter="lookup"))
    with pytest.raises(InvalidOption, match=r"verify='block'.*nothing to verify"):
        build_loop(EngineConfig(target=folder, verify="block"))
    with pytest.raises(InvalidOption, match="max_length=20 is not accepted: 31"):
        build_loop(EngineConfig(target=folder, max_length=20))
    with pytest.raises(UnsupportedCheckpoint, match="cannot guess the next one"):
        build_drafter(EngineConfig(target=folder, drafter=folder), None, None)

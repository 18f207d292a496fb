"""The next-scale target: trained by one module, run map by map by another; both say the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.batch import Batch
from models.errors import InvalidRequest, UnsupportedCheckpoint
from models.loop.groups import new_canvas
from models.readout import Readout
from models.requests.canvas import Canvas
from models.requests.request import Request, Sampling
from models.schedules.feed import pack
from models.targets.guided import GuidedTarget
from models.targets.load import load_target
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.targets.next_scale.scale_target import NextScaleTarget
from tests.models.entries import entries
from tests.models.tokenizers import tiny_images

CPU = torch.device("cpu")
CLASSES, LENGTH = 3, 30
VARIANTS = [{}, {"shared_modulation": False}, {"unit_qk": False}]


def config_of(**values):
    sizes = {"width": 32, "inner_width": 48, "num_layers": 2, "num_heads": 2, **values}
    return NextScaleConfig(
        vocab_size=tiny_images.VOCABULARY, code_width=4, num_classes=CLASSES,
        scales=tiny_images.SCALES, **sizes,
    )  # fmt: skip


def model_of(**values) -> NextScaleModel:
    """Weights large enough that the logits are far from equal."""
    torch.manual_seed(5)
    made = NextScaleModel(config_of(**values)).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.25 if weight.ndim == 2 else 0.5)
    return made.requires_grad_(False)


def target_of(model, tokenizer=None, dtype=torch.float32):
    tokenizer = tokenizer or tiny_images.scales()
    return NextScaleTarget(model.config, model.state_dict(), tokenizer, dtype=dtype, device=CPU)


@pytest.fixture(scope="module")
def model() -> NextScaleModel:
    return model_of()


@pytest.fixture(scope="module")
def target(model, arithmetic_of_module) -> NextScaleTarget:
    return target_of(model)


def request_of(number, klass, **sampling):
    prompt = (tiny_images.VOCABULARY + klass,)
    asked = Sampling(max_tokens=LENGTH, **sampling)
    return Request(id=str(number), prompt=prompt, sampling=asked, seed=number)


def random_tokens(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(tiny_images.VOCABULARY, (images, LENGTH), generator=generator)


def trained(model, classes, tokens):
    """Logits [B, L, V] of the training module."""
    return model(torch.tensor(classes), tiny_images.scales().inputs(tokens))


def walk(target, classes, tokens, rows_ahead=()):
    """Feed images map by map, `rows_ahead[b]` maps into row b before the others begin."""
    cache = target.new_cache(len(classes), 1 + LENGTH)
    canvases = [new_canvas(request_of(b, k), target) for b, k in enumerate(classes)]
    found = [[] for _ in classes]
    for b, maps in enumerate(rows_ahead):
        for _ in range(maps):
            step(target, cache, canvases, tokens, found, [b])
    while any(len(canvas.undecided) for canvas in canvases):
        left = [b for b, canvas in enumerate(canvases) if len(canvas.undecided)]
        step(target, cache, canvases, tokens, found, left)
    return torch.stack([torch.cat(parts) for parts in found]), cache


def step(target, cache, canvases, tokens, found, rows):
    """One pass over some rows; the tokens to write are given."""
    chosen = [canvases[b] for b in rows]
    plans = [target.schedule.next(canvas) for canvas in chosen]
    feeds = target.feed(chosen, plans)
    batch = pack(feeds)
    logits = target.score(cache, Batch(**_fields(batch) | {"rows": np.array(rows)})).logits
    parts = logits.split([len(plan.positions) for plan in plans])
    for b, plan, feed, part in zip(rows, plans, feeds, parts, strict=True):
        found[b].append(part)
        canvases[b].place(plan.positions, tokens[b, plan.positions].numpy())
        cache.commit(b, feed.kept)


def _fields(batch):
    return {name: getattr(batch, name) for name in Batch.__dataclass_fields__}


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("values", VARIANTS, ids=str)
def test_decoding_computes_what_was_trained(values) -> None:
    model = model_of(**values)
    tokens, classes = random_tokens(3), [0, 2, CLASSES]
    scored, cache = walk(target_of(model), classes, tokens)
    expected = trained(model, classes, tokens)
    assert expected.std() > 0.5
    torch.testing.assert_close(scored, expected, atol=1e-4, rtol=1e-4)
    assert cache.lengths.tolist() == [LENGTH] * 3


def test_hidden_states_are_those_of_the_training_module(model, target) -> None:
    tokens, read = random_tokens(1), []
    hooks = [module.register_forward_pre_hook(lambda _, given: read.append(given[0][0]))
             for module in (*model.layers, model.head)]  # fmt: skip
    trained(model, [1], tokens)
    for hook in hooks:
        hook.remove()
    canvas, cache, found = new_canvas(request_of(0, 1), target), target.new_cache(1, 1 + LENGTH), []
    readout = Readout(layers=tuple(range(target.num_layers + 1)))
    while len(canvas.undecided):
        plan = target.schedule.next(canvas)
        feed = target.feed([canvas], [plan])[0]
        found.append(target.score(cache, replace(pack([feed]), readout=readout)).states)
        canvas.place(plan.positions, tokens[0, plan.positions].numpy())
        cache.commit(0, feed.kept)
    torch.testing.assert_close(torch.cat(found), torch.stack(read, dim=1), atol=1e-4, rtol=1e-4)


def test_rows_at_different_maps_share_a_pass(model, target) -> None:
    tokens, classes = random_tokens(4), [0, 1, 2, 0]
    scored, _ = walk(target, classes, tokens, rows_ahead=(2, 0, 1, 3))
    torch.testing.assert_close(scored, trained(model, classes, tokens), atol=1e-4, rtol=1e-4)
    alone, _ = walk(target, classes[2:3], tokens[2:3])
    torch.testing.assert_close(alone[0], scored[2], rtol=0, atol=1e-5)
    if target.steady:
        assert torch.equal(alone[0], scored[2])


def test_after_a_commit_the_cache_is_that_of_one_pass(target) -> None:
    """All nodes of three maps in one pass under the mask of maps, against map by map."""
    tokens = random_tokens(1)
    ends = (0, *target.schedule.ends)
    canvas = Canvas(request_of(0, 1), LENGTH)
    cache = target.new_cache(1, 1 + LENGTH)
    feeds = []
    for scale in range(3):
        plan = target.schedule.next(canvas)
        feeds += target.feed([canvas], [plan])
        target.score(cache, pack(feeds[-1:]))
        cache.commit(0, feeds[-1].kept)
        canvas.place(plan.positions, tokens[0, plan.positions].numpy())
        assert cache.lengths[0] == ends[scale + 1]
    whole = target.new_cache(1, 1 + LENGTH)
    size = ends[3]
    level = target.config.levels()[:size]
    target.score(whole, one_pass(feeds, level[:, None] >= level))
    whole.commit(0, np.arange(size))
    torch.testing.assert_close(entries(cache, 0), entries(whole, 0), atol=1e-5, rtol=1e-5)
    following = target.feed([canvas], [target.schedule.next(canvas)])
    one, other = (target.score(c, pack(following)).logits for c in (cache, whole))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def one_pass(feeds, mask):
    width = next(feed.vectors.shape[1] for feed in feeds if feed.vectors is not None)
    vectors = [torch.zeros(1, width) if f.vectors is None else f.vectors for f in feeds]
    tokens = np.concatenate([feed.tokens for feed in feeds])
    return Batch(
        rows=np.arange(1), counts=np.array([len(tokens)]), tokens=tokens,
        depths=np.arange(len(tokens)), visible=(mask.numpy(),), inputs=torch.cat(vectors),
        conditions=np.array([feeds[0].condition]),
    )  # fmt: skip


def reached(logits_of, inputs):
    """[L, L] which output changes with which input, by changing one input at a time."""
    base = logits_of(inputs)
    out = torch.zeros(LENGTH, LENGTH, dtype=torch.bool)
    for place in range(LENGTH):
        changed = inputs.clone()
        changed[0, place] += 1.0
        out[:, place] = (logits_of(changed) - base).abs().amax(-1)[0] > 1e-7
    return out


def test_what_reaches_what_is_the_same_in_training_and_decoding(model, target) -> None:
    inputs = torch.randn(1, LENGTH, 4, generator=torch.Generator().manual_seed(1))
    level = model.config.levels()
    mask = (level[:, None] >= level) & (level > 0)  # the class stands in the first map
    assert torch.equal(reached(lambda x: model(torch.tensor([1]), x), inputs), mask)
    assert torch.equal(reached(lambda x: map_by_map(target, x), inputs), mask)


def map_by_map(target, inputs):
    """Decode with these inputs [1, L, C] in place of the tokenizer's."""
    canvas = new_canvas(request_of(0, 1), target)
    cache, out = target.new_cache(1, 1 + LENGTH), []
    while len(canvas.undecided):
        plan = target.schedule.next(canvas)
        (feed,) = target.feed([canvas], [plan])
        vectors = None if feed.vectors is None else inputs[0, plan.positions]
        fields = {name: getattr(feed, name) for name in feed.__dataclass_fields__}
        batch = pack([type(feed)(**fields | {"vectors": vectors})])
        out.append(target.score(cache, batch).logits)
        cache.commit(0, feed.kept)
        canvas.place(plan.positions, np.zeros(len(plan.positions), dtype=np.int64))
    return torch.cat(out)[None]


def test_guidance_halves_share_tokens_and_inputs(model, target) -> None:
    tokens, scale = random_tokens(2), 2.5
    guided = GuidedTarget(target, scale=scale, null_token=target.input_size - 1)
    scored, cache = walk(guided, [0, 2], tokens)
    with_, without = trained(model, [0, 2], tokens), trained(model, [CLASSES] * 2, tokens)
    torch.testing.assert_close(scored, without + scale * (with_ - without), atol=1e-3, rtol=1e-4)
    assert cache.lengths.tolist() == [LENGTH] * 2


def test_a_saved_checkpoint_loads_with_its_tokenizer(model, target, tmp_path) -> None:
    model.save(tmp_path, torch.float32)
    with pytest.raises(UnsupportedCheckpoint, match="no image tokenizer"):
        load_target(tmp_path, dtype=torch.float32, device="cpu")
    tiny_images.scales().save(tmp_path / "tokenizer")
    loaded = load_target(tmp_path, dtype=torch.float32, device="cpu")
    assert isinstance(loaded, NextScaleTarget)
    assert (loaded.vocab_size, loaded.input_size) == (32, 32 + CLASSES + 1)
    assert loaded.context_length == 1 + LENGTH
    assert loaded.schedule.num_positions == LENGTH
    tokens = random_tokens(1)
    assert torch.equal(walk(loaded, [1], tokens)[0], walk(target, [1], tokens)[0])


def test_a_tokenizer_that_does_not_fit_is_told(model) -> None:
    other = NextScaleModel(NextScaleConfig(**_as_dict(model.config) | {"code_width": 5}))
    with pytest.raises(UnsupportedCheckpoint, match="code_width is 5, its tokenizer's 4"):
        target_of(other)


def _as_dict(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_half_precision_is_near(model, target) -> None:
    tokens = random_tokens(2)
    exact, _ = walk(target, [0, 1], tokens)
    rough, _ = walk(target_of(model, dtype=torch.bfloat16), [0, 1], tokens)
    assert (exact - rough).abs().mean() < 0.1 * exact.std()


@pytest.mark.parametrize("prompt", [(0,), (32, 33), (32, 5)])
def test_prompts_are_one_class(target, prompt) -> None:
    asked = Request(id="a", prompt=prompt, sampling=Sampling(max_tokens=LENGTH))
    with pytest.raises(InvalidRequest, match="one class, id 32 to 35"):
        new_canvas(asked, target)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"num_heads": 3}, "num_heads=3: a divisor of width=32"),
        ({"num_layers": 0}, "num_layers=0: 1 or more"),
        ({"scales": (2, 1)}, "rising sides"),
    ],
)
def test_a_wrong_config_is_told(model, values, told) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=told):
        NextScaleConfig(**_as_dict(model.config) | values)

import pytest
import torch
from torch.nn import functional as F

from models.errors import InvalidRequest, UnsupportedCheckpoint
from models.tokenizers.load import load_tokenizer
from models.tokenizers.scales import ScalesConfig, ScaleTokenizer, residual_of_scale
from tests.models.tokenizers import tiny_images as tiny


def test_tokens_quantise_what_is_left_over() -> None:
    """The rule, written out: shrink the rest, take the nearest code, take its detail away."""
    tokenizer, pixels = tiny.scales(), tiny.images(3)
    tokens = tokenizer.encode(pixels)
    assert tokens.shape == (3, 1 + 4 + 9 + 16)
    rest, start = tokenizer.features(pixels), 0
    for scale, side in enumerate(tiny.SCALES):
        part = tokens[:, start : start + side**2]
        small = F.interpolate(rest, size=(side, side), mode="area").permute(0, 2, 3, 1)
        distances = (small.reshape(3, -1, 1, 4) - tokenizer.codes).square().sum(-1)
        assert torch.equal(distances.argmin(-1), part)
        codes = tokenizer.codes[part].view(3, side, side, 4).permute(0, 3, 1, 2)
        wide = F.interpolate(codes, size=(4, 4), mode="bicubic") if side < 4 else codes
        phi = tokenizer.residuals[residual_of_scale(4, 4)[scale]]
        rest = rest - (0.5 * wide + 0.5 * F.conv2d(wide, phi.weight, phi.bias, padding=1))
        start += side**2


def test_decoding_sums_the_scales() -> None:
    tokenizer = tiny.scales()
    tokens = tokenizer.encode(tiny.images(2))
    total, start = torch.zeros(2, 4, 4, 4), 0
    for scale, side in enumerate(tiny.SCALES):
        total += tokenizer.detail(tokenizer.codes[tokens[:, start : start + side**2]], scale)
        start += side**2
        preview = tokenizer.decode_prefix(tokens[:, :start])
        with torch.no_grad():
            expected = tokenizer.pixels(total).clamp(-1, 1)
        torch.testing.assert_close(preview, expected)
    assert torch.equal(preview, tokenizer.decode(tokens))


def test_next_input_is_what_encoding_left_behind() -> None:
    """Features minus what encoding had left over at a scale = the sum of the scales before it."""
    tokenizer, pixels = tiny.scales(), tiny.images(2)
    tokens, features = tokenizer.encode(pixels), tokenizer.features(pixels)
    rest = features
    for scale, (side, end) in enumerate(zip(tiny.SCALES, tokenizer.ends, strict=True)):
        read = tokenizer.next_input(tokens[:, : tokenizer.start(scale)], scale)
        assert read.shape == (2, side**2, 4)
        expected = F.interpolate(features - rest, size=(side, side), mode="area")
        torch.testing.assert_close(read, expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
        rest = rest - tokenizer.detail(
            tokenizer.codes[tokens[:, tokenizer.start(scale) : end]], scale
        )


def test_next_input_knows_nothing_of_later_tokens() -> None:
    tokenizer = tiny.scales()
    first, second = torch.randint(tiny.VOCABULARY, (2, 1, 30))
    for scale in range(4):
        start = tokenizer.start(scale)
        mixed = torch.cat([first[:, :start], second[:, start:]], dim=1)
        read = tokenizer.next_input(first[:, :start], scale)
        assert torch.equal(read, tokenizer.next_input(mixed, scale))
    assert (tokenizer.next_input(first[:, :0], 0) == 0).all()


def test_all_inputs_at_once_are_those_one_by_one() -> None:
    tokenizer = tiny.scales()
    tokens = torch.randint(tiny.VOCABULARY, (3, 30))
    each = [tokenizer.next_input(tokens, scale) for scale in range(4)]
    assert torch.equal(tokenizer.inputs(tokens), torch.cat(each, dim=1))
    alone = torch.cat([tokenizer.inputs(row[None]) for row in tokens])
    assert torch.equal(tokenizer.inputs(tokens), alone)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda t: t.decode_prefix(torch.zeros(1, 3, dtype=torch.int64)), "3 tokens end within"),
        (lambda t: t.decode(torch.zeros(1, 5, dtype=torch.int64)), "5 tokens an image; 30"),
        (lambda t: t.next_input(torch.zeros(1, 4, dtype=torch.int64), 2), "scale 2 follows 5"),
        (lambda t: t.next_input(torch.zeros(1, 30, dtype=torch.int64), 4), "scale 4; 0 to 3"),
    ],
)
def test_what_cannot_be_done_is_told(act, told) -> None:
    with pytest.raises(InvalidRequest, match=told):
        act(tiny.scales())


@pytest.mark.parametrize("scales", [(), (1, 2, 3), (2, 1, 4), (0, 4), (1, 1, 4)])
def test_scales_rise_to_the_size_of_the_features(scales) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="rising sides up to 4"):
        ScalesConfig(conv=tiny.CONV, image_size=8, scales=scales)


def test_residuals_are_shared_as_published() -> None:
    """By the published marks: linspace(1/12, 11/12, 4), nearest to i / 9."""
    assert residual_of_scale(10, 4) == (0, 0, 0, 1, 1, 2, 2, 2, 3, 3)
    assert residual_of_scale(10, 10) == tuple(range(10))
    assert residual_of_scale(5, 1) == (0,) * 5
    assert residual_of_scale(1, 4) == (0,)


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    tokenizer, pixels = tiny.scales(), tiny.images(3)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, ScaleTokenizer)
    assert loaded.config == tokenizer.config
    tokens = loaded.encode(pixels)
    assert torch.equal(tokens, tokenizer.encode(pixels))
    assert torch.equal(loaded.decode(tokens), tokenizer.decode(tokens))


def test_the_defaults_are_vars() -> None:
    with torch.device("meta"):
        tokenizer = ScaleTokenizer(ScalesConfig())
    assert tokenizer.num_tokens == 680
    assert tokenizer.codes.shape == (4096, 32)

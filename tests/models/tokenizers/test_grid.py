import pytest
import torch
from torch.nn import functional as F

from models.errors import InvalidRequest, UnsupportedCheckpoint
from models.tokenizers.conv import ConvConfig
from models.tokenizers.grid import GridConfig, GridTokenizer
from models.tokenizers.load import load_tokenizer
from tests.models.tokenizers import tiny_images as tiny


def test_tokens_are_the_nearest_codes() -> None:
    tokenizer, pixels = tiny.grid(), tiny.images(5)
    tokens = tokenizer.encode(pixels)
    assert tokens.shape == (5, 16)
    assert tokens.dtype == torch.int64
    directions = F.normalize(
        tokenizer.features(pixels).permute(0, 2, 3, 1).reshape(5, 16, 4), dim=-1
    )
    distances = torch.cdist(directions, tokenizer.codebook().expand(5, -1, -1))
    assert torch.equal(tokens, distances.argmin(-1))


def test_codes_have_length_one_and_are_their_own_tokens() -> None:
    tokenizer = tiny.grid()
    codes = tokenizer.codebook()
    assert codes.shape == (tiny.VOCABULARY, 4)
    assert torch.allclose(codes.norm(dim=-1), torch.ones(tiny.VOCABULARY))
    every = torch.arange(tiny.VOCABULARY)[None]
    assert torch.equal(tokenizer.quantise(codes[None]), every)
    assert torch.equal(tokenizer.quantise(7 * codes[None]), every)


def test_decoding_tokens_is_decoding_their_vectors_clamped() -> None:
    tokenizer = tiny.grid()
    tokens = torch.randint(tiny.VOCABULARY, (3, 16))
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == (3, 1, 8, 8)
    assert decoded.abs().max() <= 1
    assert torch.equal(decoded, tokenizer.decode_values(tokenizer.codebook()[tokens]))


def test_a_place_of_the_grid_is_a_place_of_the_image() -> None:
    """Without attention and norms over the whole image, a token reaches its neighbourhood only."""
    tokenizer = tiny.grid()
    tokens = torch.randint(tiny.VOCABULARY, (1, 16))
    other = tokens.clone()
    other[0, 5] = (other[0, 5] + 1) % tiny.VOCABULARY
    local = torch.nn.Sequential(tokenizer.from_code, tokenizer.decoder.conv_in)
    values = (tokenizer.codebook()[t].view(1, 4, 4, 4).permute(0, 3, 1, 2) for t in (tokens, other))
    changed = torch.ne(*(local(v) for v in values)).any(1)[0]
    assert changed[:3, :3].all()  # row 1, column 1 and its eight neighbours
    assert changed.sum() == 9


def test_preview_of_all_is_the_image_and_of_none_is_an_empty_one() -> None:
    tokenizer = tiny.grid()
    tokens = tokenizer.encode(tiny.images(2))
    assert torch.equal(tokenizer.decode_prefix(tokens), tokenizer.decode(tokens))
    empty = tokenizer.encode(-torch.ones(2, 1, 8, 8))
    assert torch.equal(tokenizer.decode_prefix(tokens[:, :0]), tokenizer.decode(empty))
    mixed = torch.cat([tokens[:, :7], empty[:, 7:]], dim=1)
    assert torch.equal(tokenizer.decode_prefix(tokens[:, :7]), tokenizer.decode(mixed))


def test_the_empty_image_follows_the_weights() -> None:
    tokenizer = tiny.grid()
    before = tokenizer.empty()
    tokenizer.train()
    tokenizer.codes.data = tokenizer.codes.data.flip(0)
    tokenizer.eval()
    assert torch.equal(tokenizer.empty(), tiny.VOCABULARY - 1 - before)


@pytest.mark.parametrize("make", [tiny.grid, tiny.scales])
def test_an_image_does_not_depend_on_its_neighbours(make) -> None:
    """To the bit, whatever the batch: resumed jobs write the same bytes."""
    tokenizer, pixels = make(), tiny.images(20)
    tokens = tokenizer.encode(pixels)
    decoded = tokenizer.decode(tokens)
    for size in (1, 2, 7):
        assert torch.equal(tokenizer.encode(pixels[:size]), tokens[:size])
        assert torch.equal(tokenizer.decode(tokens[:size]), decoded[:size])


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    tokenizer, pixels = tiny.grid(), tiny.images(3)
    tokenizer.save(tmp_path / "tokenizer")
    for folder in (tmp_path, tmp_path / "tokenizer"):
        loaded = load_tokenizer(folder)
        assert isinstance(loaded, GridTokenizer)
        assert loaded.config == tokenizer.config
        tokens = loaded.encode(pixels)
        assert torch.equal(tokens, tokenizer.encode(pixels))
        assert torch.equal(loaded.decode(tokens), tokenizer.decode(tokens))


def test_half_precision_is_widened_when_loaded(tmp_path) -> None:
    tokenizer = tiny.grid()
    tokenizer.save(tmp_path, dtype=torch.bfloat16)
    loaded = load_tokenizer(tmp_path)
    assert loaded.codes.dtype == torch.float32
    assert torch.equal(loaded.codes, tokenizer.codes.bfloat16().float())


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (torch.zeros(1, 17, dtype=torch.int64), "at most 16"),
        (torch.zeros(1, 16), "int64 is needed"),
        (torch.zeros(16, dtype=torch.int64), "int64 is needed"),
        (torch.full((1, 16), 32), "image token 32; 0 to 31"),
        (torch.full((1, 16), -1), "image token -1"),
        (torch.zeros(1, 15, dtype=torch.int64), "15 tokens an image; 16 are needed"),
    ],
)
def test_wrong_tokens_are_refused(tokens, told) -> None:
    with pytest.raises(InvalidRequest, match=told):
        tiny.grid().decode(tokens)


def test_wrong_images_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"\(2, 3, 8, 8\); \(number, 1, 8, 8\)"):
        tiny.grid().encode(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (lambda: GridConfig(image_size=100), "image_size=100: a multiple of 16"),
        (lambda: GridConfig(vocab_size=0), "vocab_size=0"),
        (lambda: ConvConfig(channels=48), "num_groups=32 does not divide channels=48"),
        (lambda: ConvConfig(multipliers=()), "multipliers"),
        (lambda: ConvConfig(num_blocks=0), "num_blocks=0"),
    ],
)
def test_impossible_sizes_are_refused(config, told) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=told):
        config()


def test_the_defaults_are_vq16s() -> None:
    with torch.device("meta"):
        tokenizer = GridTokenizer(GridConfig())
    assert tokenizer.num_tokens == 256
    assert tokenizer.codes.shape == (16384, 8)
    assert sum(p.numel() for p in tokenizer.parameters()) == 71_883_403

"""The raster target: trained by one module, run by the decoder; both say the same."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.batch import Batch, chain
from models.errors import UnsupportedCheckpoint
from models.targets.decoder.checkpoint import load_decoder
from models.targets.decoder.config import RotaryConfig, is_known, parse_config
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.rotary import Rotary
from models.training.raster import RasterConfig, RasterModel

CPU = torch.device("cpu")
CONFIG = RasterConfig(
    vocab_size=24, code_width=4, num_classes=3, grid_width=4, grid_height=3,
    width=32, inner_width=48, num_layers=2, num_heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> RasterModel:
    """Weights large enough that the logits are far from equal."""
    torch.manual_seed(3)
    made = RasterModel(CONFIG, F.normalize(torch.randn(24, 4), dim=-1)).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.25) if weight.ndim == 2 else weight.data.uniform_(
            0.5, 2
        )
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def decoder(model, tmp_path_factory) -> Decoder:
    folder = tmp_path_factory.mktemp("raster")
    model.save(folder, torch.float32)
    return load_decoder(folder, dtype=torch.float32, device=CPU)


def prompt(klass: int) -> int:
    """The input id of a class; 3 is none."""
    return CONFIG.vocab_size + klass


@pytest.mark.parametrize("klass", [0, 2, 3])
def test_the_decoder_computes_what_was_trained(model, decoder, klass) -> None:
    tokens = torch.randint(24, (12,), generator=torch.Generator().manual_seed(klass))
    ids = np.concatenate([[prompt(klass)], tokens[:-1].numpy()])
    scored = decoder.score(decoder.new_cache(1, 13), chain(0, ids)).logits
    trained = model(torch.tensor([klass]), tokens[None, :-1])[0]
    assert trained.std() > 0.5
    torch.testing.assert_close(scored, trained, atol=1e-4, rtol=1e-4)


def test_one_by_one_is_all_at_once(model, decoder) -> None:
    tokens = torch.randint(24, (1, 12), generator=torch.Generator().manual_seed(9))
    whole = model(torch.tensor([1]), tokens[:, :-1])[0]
    cache = decoder.new_cache(1, 13)
    for place, token in enumerate([prompt(1), *tokens[0, :-1].tolist()]):
        scored = decoder.score(cache, chain(0, np.array([token])))
        cache.commit(0, np.array([0]))
        torch.testing.assert_close(scored.logits[0], whole[place], atol=1e-4, rtol=1e-4)


def test_rows_of_a_batch_do_not_mix(decoder) -> None:
    ids = np.array([[prompt(0), 1, 2], [prompt(3), 1, 2]])
    both = Batch(
        rows=np.arange(2), counts=np.array([3, 3]), tokens=ids.ravel(),
        depths=np.tile(np.arange(3), 2), visible=(None, None),
    )  # fmt: skip
    scored = decoder.score(decoder.new_cache(2, 13), both).logits.view(2, 3, -1)
    for row in range(2):
        alone = decoder.score(decoder.new_cache(1, 13), chain(0, ids[row])).logits
        assert torch.equal(scored[row], alone)
    assert not torch.equal(scored[0], scored[1])


def test_vectors_of_codes_are_inputs_of_tokens(model, decoder) -> None:
    tokens = torch.arange(24)
    codes = model.model.codebook
    assert torch.equal(decoder.embed(tokens), decoder.embed_vectors(codes))
    between = codes[:1].lerp(codes[1:2], 0.5)
    expected = decoder.embed(tokens[:1]).lerp(decoder.embed(tokens[1:2]), 0.5)
    torch.testing.assert_close(decoder.embed_vectors(between), expected)


def test_what_can_be_read_and_written(decoder) -> None:
    assert decoder.vocab_size == 24
    assert decoder.input_size == 24 + 3 + 1
    assert decoder.context_length == 13
    assert decoder.eos_token_ids == ()
    assert decoder.architecture == "PacelineRasterForCausalLM"


def test_half_precision_keeps_the_codebook(model, tmp_path) -> None:
    model.save(tmp_path, torch.bfloat16)
    loaded = load_decoder(tmp_path, dtype=torch.bfloat16, device=CPU)
    vectors = loaded.embed_vectors(model.model.codebook)
    assert torch.equal(loaded.embed(torch.arange(24)), vectors)


def test_a_table_of_inputs_reads_ids_only(tmp_path) -> None:
    raw = CONFIG.as_json() | {"code_width": None}
    decoder = Decoder.from_config(parse_config(raw, {}))
    ids = np.array([prompt(2), 5, 23])
    assert decoder.score(decoder.new_cache(1, 13), chain(0, ids)).logits.shape == (3, 24)
    with pytest.raises(UnsupportedCheckpoint, match="reads token ids only"):
        decoder.embed_vectors(torch.zeros(1, 4))


def test_the_loss_is_that_of_the_logits(model) -> None:
    tokens = torch.randint(24, (5, 12))
    classes = torch.randint(4, (5,))
    logits = model(classes, tokens)[:, :-1].log_softmax(-1)
    expected = -logits.gather(-1, tokens[..., None]).mean()
    torch.testing.assert_close(model.loss(classes, tokens), expected)


def test_each_place_turns_with_its_row_and_column() -> None:
    """Against the rule written out pair by pair: heads of 8 have 2 pairs for each direction."""
    table = Rotary(RotaryConfig(kind="grid", theta=100.0, row_length=4), 8, CPU)
    table.reserve(13)
    found = table(torch.arange(13))[:, 0]  # [13, 4]
    assert (found[0] == 0).all()  # the class is a null vector
    for place in range(12):
        row, column = divmod(place, 4)
        angles = [row * 1.0, row * 0.1, column * 1.0, column * 0.1]
        expected = torch.tensor([complex(np.cos(a), np.sin(a)) for a in angles])
        torch.testing.assert_close(found[1 + place], expected.to(torch.complex64))


def test_scores_depend_on_the_distance_of_places_only(model) -> None:
    """Moved by a row or a column, a pair of places keeps the product of query and key."""
    table = Rotary(RotaryConfig(kind="grid", row_length=5), 16, CPU)
    table.reserve(26)
    places = table(torch.arange(1, 26))[:, 0].view(5, 5, -1)
    query, key = torch.randn(2, 8, dtype=torch.complex64)

    def product(at, to):
        return (query * places[at] * (key * places[to]).conj()).real.sum()

    for shift in ((1, 0), (0, 1), (2, 1)):
        moved = [(r + shift[0], c + shift[1]) for r, c in ((1, 2), (0, 1))]
        torch.testing.assert_close(product(*moved), product((1, 2), (0, 1)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"num_classes": None}, "num_classes is missing"),
        ({"grid_width": 0}, "grid_width is 0"),
        ({"hidden_size": 12}, "heads of 6 dimensions"),
    ],
)
def test_a_wrong_config_is_told(model, tmp_path, values, told) -> None:
    model.save(tmp_path, torch.float32)
    file = tmp_path / "config.json"
    raw = json.loads(file.read_text()) | values
    assert is_known(raw)
    file.write_text(json.dumps(raw))
    with pytest.raises(UnsupportedCheckpoint, match=told):
        load_decoder(tmp_path, dtype=torch.float32, device=CPU)

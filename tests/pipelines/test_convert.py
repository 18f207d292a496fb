"""`paceline convert` on random files of the published names and shapes."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from models.batch import chain
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.published import image_layouts as published
from models.targets.decoder.checkpoint import load_decoder
from models.targets.load import load_target
from models.targets.next_scale.scale_target import NextScaleTarget
from models.tokenizers.grid import GridTokenizer
from models.tokenizers.load import load_tokenizer
from models.tokenizers.scales import ScaleTokenizer
from pipelines.cli import main
from pipelines.convert import ConvertConfig, convert
from pipelines.errors import OutputRefused
from tests.models.published import published_models as theirs
from tests.models.published import test_published_var as var

SCALES = (1, 2, 3, 4)
OPTIONS = {
    "llamagen-vq16": (theirs.vq16, ["--image-size", "16"]),
    "var-vqvae": (theirs.vqvae, ["--scales", *map(str, SCALES)]),
    "llamagen-gpt": (theirs.gpt, ["--image-size", "64", "--heads", "4"]),
    "var": (var.file_of, ["--scales", *map(str, SCALES)]),
}


def converted(tmp_path: Path, layout: str, **more) -> tuple[theirs.Tensors, Path]:
    make, options = OPTIONS[layout]
    tensors = make(**more)
    save_file(tensors, tmp_path / "published.safetensors")
    arguments = ["--input", str(tmp_path / "published.safetensors")]
    arguments += ["--output", str(tmp_path / "ours")]
    assert main(["convert", "--from", layout, *arguments, *options]) == 0
    return tensors, tmp_path / "ours"


def test_a_grid_tokenizer_computes_the_same(tmp_path, capsys) -> None:
    tensors, folder = converted(tmp_path, "llamagen-vq16")
    assert "paceline_grid_tokenizer" in capsys.readouterr().out
    ours = load_tokenizer(folder)
    assert isinstance(ours, GridTokenizer)
    pixels = 2 * torch.rand(2, 3, 16, 16) - 1
    features = theirs.encoded(tensors, False, pixels)
    torch.testing.assert_close(ours.features(pixels), features, atol=1e-4, rtol=1e-4)
    codes = F.normalize(tensors["quantize.embedding.weight"], dim=-1)
    tokens = (F.normalize(features, dim=1).permute(0, 2, 3, 1) @ codes.T).argmax(-1)
    assert torch.equal(ours.encode(pixels), tokens.flatten(1))
    decoded = theirs.decoded(tensors, False, codes[tokens].permute(0, 3, 1, 2))
    torch.testing.assert_close(ours.decode(tokens.flatten(1)), decoded, atol=1e-4, rtol=1e-4)


def test_a_next_scale_target_runs_with_its_tokenizer(tmp_path) -> None:
    _, folder = converted(tmp_path, "var", shared=False, unit=True)
    with pytest.raises(UnsupportedCheckpoint, match="no image tokenizer"):
        load_target(folder, dtype=torch.float32, device="cpu")
    (tmp_path / "inner").mkdir()
    converted(tmp_path / "inner", "var-vqvae")[1].rename(folder / "tokenizer")
    target = load_target(folder, dtype=torch.float32, device="cpu")
    assert isinstance(target, NextScaleTarget)
    assert (target.vocab_size, target.schedule.num_positions) == (64, 30)


def test_a_scale_tokenizer_computes_the_same(tmp_path) -> None:
    tensors, folder = converted(tmp_path, "var-vqvae")
    ours = load_tokenizer(folder)
    assert isinstance(ours, ScaleTokenizer)
    assert ours.scales == SCALES
    assert ours.image_size == 8
    pixels = 2 * torch.rand(2, 3, 8, 8) - 1
    features = theirs.encoded(tensors, True, pixels)
    torch.testing.assert_close(ours.features(pixels), features, atol=1e-4, rtol=1e-4)
    tokens = ours.encode(pixels)
    total = torch.zeros_like(features)
    for scale, (first, end) in enumerate(zip((0, *ours.ends), ours.ends, strict=False)):
        side = SCALES[scale]
        codes = tensors["quantize.embedding.weight"][tokens[:, first:end]]
        wide = codes.transpose(1, 2).reshape(2, 16, side, side)
        wide = F.interpolate(wide, size=(4, 4), mode="bicubic")
        total += 0.5 * wide + 0.5 * theirs.conv(
            tensors, f"quantize.quant_resi.qresi_ls.{scale}", wide
        )
    decoded = theirs.decoded(tensors, True, total)
    torch.testing.assert_close(ours.decode(tokens), decoded, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_a_gpt_computes_the_same(tmp_path, kv_heads) -> None:
    """The random weights reach the logits through every tensor; a class is id 40 + class."""
    tensors, folder = converted(tmp_path, "llamagen-gpt", kv_heads=kv_heads)
    decoder = load_decoder(folder, dtype=torch.float32, device=torch.device("cpu"))
    tokens = torch.randint(40, (15,), generator=torch.Generator().manual_seed(1)).tolist()
    for klass in (0, 5):
        ids = np.array([40 + klass, *tokens])
        scored = decoder.score(decoder.new_cache(1, 17), chain(0, ids)).logits
        expected = theirs.gpt_logits(tensors, klass, tokens, side=4)
        assert expected.std() > 0.3
        torch.testing.assert_close(scored, expected, atol=1e-4, rtol=1e-4)


def meta(tensors: dict[str, tuple[int, ...]]) -> theirs.Tensors:
    return {name: torch.empty(shape, device="meta") for name, shape in tensors.items()}


def test_the_full_shapes_of_a_published_gpt() -> None:
    """GPT-B at 384 pixels: 111 million parameters, 24 x 24 places."""
    shapes = {
        "cls_embedding.embedding_table.weight": (1001, 768),
        "tok_embeddings.weight": (16384, 768),
        "norm.weight": (768,),
        "output.weight": (16384, 768),
    }
    layer = {
        "attention.wqkv": (2304, 768), "attention.wo": (768, 768), "feed_forward.w1": (2048, 768),
        "feed_forward.w3": (2048, 768), "feed_forward.w2": (768, 2048), "attention_norm": (768,),
        "ffn_norm": (768,),
    }  # fmt: skip
    for index in range(12):
        shapes |= {f"layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    made = published.raster_target(meta(shapes), published.Told(image_size=384))
    assert made.config["num_attention_heads"] == made.config["num_key_value_heads"] == 12
    assert made.config["max_position_embeddings"] == 1 + 24 * 24
    assert made.config["num_classes"] == 1000
    assert made.tensors["model.embed_tokens.weight"].shape == (16384 + 1001, 768)
    assert sum(t.numel() for t in made.tensors.values()) == 110_888_448


@pytest.mark.parametrize(
    ("channels", "make", "turn", "parameters"),
    [
        (128, theirs.vq16, published.grid_tokenizer, 71_883_403),
        (160, theirs.vqvae, published.scale_tokenizer, 108_948_355),
    ],
)
def test_the_full_shapes_of_published_tokenizers(
    monkeypatch, channels, make, turn, parameters
) -> None:
    monkeypatch.setattr(theirs, "CHANNELS", channels)
    monkeypatch.setattr(theirs, "MULTIPLIERS", (1, 1, 2, 2, 4))
    monkeypatch.setattr(theirs, "SIZES", {False: (256, 8, 16384), True: (32, 32, 4096)})
    with torch.device("meta"):
        monkeypatch.setattr(theirs.Maker, "draw", draw_nothing)
        made = turn(make(), published.Told())
    assert made.config["conv"]["channels"] == channels
    assert made.config["conv"]["multipliers"] == (1, 1, 2, 2, 4)
    assert made.config["image_size"] == 256
    assert sum(t.numel() for t in made.tensors.values()) == parameters


def draw_nothing(maker: theirs.Maker, name: str, *shape: int, **_: float) -> None:
    maker.tensors[name] = torch.empty(shape)


def refused(tmp_path: Path, file: str, layout: str = "llamagen-vq16", **more) -> str:
    config = ConvertConfig(
        layout=layout, input=str(tmp_path / file), output=str(tmp_path / "out"), **more
    )
    with pytest.raises(UnsupportedCheckpoint) as caught:
        convert(config)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


class Bomb:
    """Leaves a trace if it is ever unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.safetensors"])
def test_a_pickle_is_never_run(tmp_path, name) -> None:
    data = pickle.dumps({"model": Bomb(tmp_path / "trace")})
    with zipfile.ZipFile(tmp_path / name, "w") as file:
        file.writestr("archive/data.pkl", data)
    told = refused(tmp_path, name)
    assert "is a pickle, which may hold code and is never loaded" in told
    assert f"torch.load({name!r}, weights_only=True)[\"model\"], 'model.safetensors'" in told
    (tmp_path / name).write_bytes(data)
    refused(tmp_path, name)
    assert not (tmp_path / "trace").exists()


def test_other_layouts_are_told(tmp_path) -> None:
    save_file(theirs.gpt(), tmp_path / "gpt.safetensors")
    assert "it has no encoder.conv_in.weight" in refused(tmp_path, "gpt.safetensors")
    save_file(theirs.vq16(), tmp_path / "vq.safetensors")
    assert "tok_embeddings" in refused(tmp_path, "vq.safetensors", "llamagen-gpt")
    assert "is not a file" in refused(tmp_path, "nothing.safetensors")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda t: t.pop("layers.1.ffn_norm.weight"), r"lacks the tensor layers\.1\.ffn_norm"),
        (lambda t: t.update(extra=torch.zeros(1)), "no known use: extra"),
        (lambda t: t.update({"cls_embedding.cap_proj.fc1.weight": torch.zeros(1)}), "text-cond"),
    ],
)
def test_a_gpt_that_is_not_one_is_told(edit, told) -> None:
    tensors = theirs.gpt()
    edit(tensors)
    with pytest.raises(UnsupportedCheckpoint, match=told):
        published.raster_target(tensors, published.Told(heads=4))


@pytest.mark.parametrize("make", [theirs.vq16, theirs.vqvae])
def test_a_tokenizer_that_is_not_whole_is_told(make) -> None:
    turn = published.grid_tokenizer if make is theirs.vq16 else published.scale_tokenizer
    told = published.Told(image_size=16, scales=SCALES)
    tensors = make()
    tensors.pop("decoder.conv_out.bias")
    with pytest.raises(UnsupportedCheckpoint, match=r"lacks the tensor decoder\.conv_out\.bias"):
        turn(tensors, told)
    with pytest.raises(UnsupportedCheckpoint, match="does not belong there: extra"):
        turn(make() | {"extra": torch.zeros(1)}, told)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"layout": "vae"}, "one of llamagen-vq16"),
        ({"heads": 4}, "heads=4 is not accepted: llamagen-vq16 does not read it"),
        ({"scales": (1, 2)}, "llamagen-vq16 does not read it"),
        ({"image_size": 100}, "a multiple of 16"),
        ({"image_size": 0}, "1 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, told) -> None:
    with pytest.raises(InvalidOption, match=told):
        ConvertConfig(**{"layout": "llamagen-vq16", "input": "i", "output": "o", **values})


def test_a_checkpoint_is_never_overwritten(tmp_path) -> None:
    _, folder = converted(tmp_path, "llamagen-vq16")
    config = ConvertConfig(
        layout="llamagen-vq16", input=str(tmp_path / "published.safetensors"), output=str(folder)
    )
    with pytest.raises(OutputRefused, match="holds a checkpoint already"):
        convert(config)

"""Converts the tensors of published image checkpoints to our layouts.

Sizes come from the shapes. What the shapes do not show comes from options (`Told`) or is fixed by
the layout. docs/checkpoint-layouts.md lists the names. Also works with tensors on device "meta".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from models.errors import InvalidOption, UnsupportedCheckpoint
from models.store import check_shapes
from models.targets.decoder.config import RASTER
from models.tokenizers.conv import ConvConfig
from models.tokenizers.grid import GridConfig, GridTokenizer
from models.tokenizers.scales import PUBLISHED_SCALES, ScalesConfig, ScaleTokenizer

Tensors = Mapping[str, torch.Tensor]
Rules = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Options for what the shapes do not show; None or (): the published value."""

    image_size: int | None = None
    heads: int | None = None
    scales: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A checkpoint in our layout."""

    model_type: str
    config: Mapping[str, Any]
    tensors: dict[str, torch.Tensor]


BLOCKS: Rules = (
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.proj_out\.", ".out."),
    (r"^quant_conv\.", "to_code."),
    (r"^post_quant_conv\.", "from_code."),
    (r"^quantize\.embedding\.weight$", "codes"),
)
VQ16: Rules = (
    (r"\.conv_blocks\.(\d+)\.res\.", r".levels.\1.residual."),
    (r"\.conv_blocks\.(\d+)\.attn\.", r".levels.\1.attention."),
    (r"\.conv_blocks\.(\d+)\.(?:up|down)sample\.conv\.", r".levels.\1.resize."),
    (r"^(\w+)\.mid\.", r"\1.middle."),
    *BLOCKS,
)
VQVAE: Rules = (
    (r"\.(?:up|down)\.(\d+)\.block\.", r".levels.\1.residual."),
    (r"\.(?:up|down)\.(\d+)\.attn\.", r".levels.\1.attention."),
    (r"\.(?:up|down)\.(\d+)\.(?:up|down)sample\.conv\.", r".levels.\1.resize."),
    (r"\.mid\.block_1\.", ".middle.0."),
    (r"\.mid\.attn_1\.", ".middle.1."),
    (r"\.mid\.block_2\.", ".middle.2."),
    (r"^quantize\.quant_resi\.(?:qresi_ls\.)?(\d+)\.", r"residuals.\1."),
    (r"^quantize\.quant_resi\.qresi\.", "residuals.0."),
    *BLOCKS,
)


def grid_tokenizer(tensors: Tensors, told: Told) -> Converted:
    """LlamaGen's VQ-8 and VQ-16."""
    renamed = _stacked(_renamed(tensors, VQ16, unused=("quantize.codebook_used",)))
    conv = _conv_config(renamed)
    codes = shape_of(renamed, "codes")
    config = GridConfig(
        conv=conv, image_size=told.image_size or 256, vocab_size=codes[0], code_width=codes[1]
    )
    with torch.device("meta"):
        check_shapes(renamed, GridTokenizer(config), "the file")
    return Converted(
        model_type=GridTokenizer.model_type, config=asdict(config), tensors=dict(renamed)
    )


def scale_tokenizer(tensors: Tensors, told: Told) -> Converted:
    """VAR's multi-scale VQVAE."""
    renamed = _renamed(tensors, VQVAE, unused=("quantize.ema_vocab_hit_SV",))
    conv = _conv_config(renamed)
    last = len(conv.multipliers) - 1
    upside = {_turned(name, last): tensor for name, tensor in renamed.items()}
    scales, codes = told.scales or PUBLISHED_SCALES, shape_of(renamed, "codes")
    config = ScalesConfig(
        conv=conv,
        image_size=scales[-1] * conv.shrink,
        vocab_size=codes[0],
        code_width=codes[1],
        scales=scales,
        num_residuals=count_of(upside, r"residuals\.(\d+)\."),
    )
    with torch.device("meta"):
        check_shapes(upside, ScaleTokenizer(config), "the file")
    return Converted(model_type=ScaleTokenizer.model_type, config=asdict(config), tensors=upside)


def raster_target(tensors: Tensors, told: Told) -> Converted:
    """LlamaGen's class-conditional GPT, with a stored embedding table."""
    if any("cap_proj" in name for name in tensors):
        raise UnsupportedCheckpoint("the file holds a text-conditional GPT; class-conditional only")
    vocab_size, width = shape_of(tensors, "tok_embeddings.weight")
    heads = told.heads or (32 if width in (3200, 4096) else width // 64)
    if heads < 1 or width % heads or width // heads % 4:
        raise InvalidOption("heads", heads, f"heads of 4, 8, 12... dimensions, {width} in all")
    num_layers = count_of(tensors, r"layers\.(\d+)\.")
    side = (told.image_size or 256) // 16
    qkv = shape_of(tensors, "layers.0.attention.wqkv.weight")[0]
    kv_heads = (qkv - width) // (2 * width // heads)
    config = {
        "architectures": ["PacelineRasterForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": shape_of(tensors, "layers.0.feed_forward.w1.weight")[0],
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 1 + side * side,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "num_classes": shape_of(tensors, "cls_embedding.embedding_table.weight")[0] - 1,
        "grid_width": side,
        "code_width": None,
    }
    return Converted(
        model_type=RASTER, config=config, tensors=_raster_tensors(tensors, num_layers, heads)
    )


def _raster_tensors(tensors: Tensors, num_layers: int, heads: int) -> dict[str, torch.Tensor]:
    left = dict(tensors)

    def take(name: str) -> torch.Tensor:
        if name not in left:
            raise UnsupportedCheckpoint(f"the file lacks the tensor {name}")
        return left.pop(name)

    made = {
        "model.embed_tokens.weight": torch.cat(
            [take("tok_embeddings.weight"), take("cls_embedding.embedding_table.weight")]
        ),
        "model.norm.weight": take("norm.weight"),
        "lm_head.weight": take("output.weight"),
    }
    for index in range(num_layers):
        theirs, ours = f"layers.{index}", f"model.layers.{index}"
        qkv = take(f"{theirs}.attention.wqkv.weight")
        made |= {f"{ours}.self_attn.{k}_proj.weight": v for k, v in _split(qkv, heads).items()}
        for name, published in LAYER.items():
            made[f"{ours}.{name}.weight"] = take(f"{theirs}.{published}.weight")
    if left:
        raise UnsupportedCheckpoint(f"the file has a tensor of no known use: {next(iter(left))}")
    return made


LAYER = {
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _split(qkv: torch.Tensor, heads: int) -> dict[str, torch.Tensor]:
    """Query, key and value from the stacked matrix, where rotated pairs are adjacent."""
    width = qkv.shape[1]
    rest = (qkv.shape[0] - width) // 2
    query, key, value = qkv.split([width, rest, rest])
    head_dim = width // heads
    return {"q": _halves(query, head_dim), "k": _halves(key, head_dim), "v": value.clone()}


def _halves(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows 0, 2, 4... of each head, then rows 1, 3, 5..., from [H * D, width]."""
    pairs = weight.reshape(-1, head_dim // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _renamed(tensors: Tensors, rules: Rules, unused: tuple[str, ...]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        if name in unused:
            continue
        for pattern, ours in rules:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor
    return renamed


def _stacked(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors, with separate q, k and v convolutions of attention stacked."""
    made: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(.*)\.([qkv])\.(weight|bias)", name)
        if found is None:
            made[name] = tensor
        elif found[2] == "q":
            parts = [f"{found[1]}.{letter}.{found[3]}" for letter in "qkv"]
            for part in parts:
                shape_of(tensors, part)
            made[f"{found[1]}.qkv.{found[3]}"] = torch.cat([tensors[part] for part in parts])
    return made


def _turned(name: str, last: int) -> str:
    """Our name: VAR counts the decoder's levels from the largest size, we from the smallest."""
    found = re.match(r"decoder\.levels\.(\d+)\.", name)
    return name if found is None else f"decoder.levels.{last - int(found[1])}.{name[found.end() :]}"


def _conv_config(tensors: Tensors) -> ConvConfig:
    channels, image_channels = shape_of(tensors, "encoder.conv_in.weight")[:2]
    levels = count_of(tensors, r"encoder\.levels\.(\d+)\.")
    first = "encoder.levels.{}.residual.0.conv2.weight"
    return ConvConfig(
        image_channels=image_channels,
        channels=channels,
        multipliers=tuple(shape_of(tensors, first.format(i))[0] // channels for i in range(levels)),
        num_blocks=count_of(tensors, r"encoder\.levels\.0\.residual\.(\d+)\."),
        latent_channels=shape_of(tensors, "encoder.conv_out.weight")[0],
    )


def shape_of(tensors: Tensors, name: str) -> tuple[int, ...]:
    """A tensor's shape; raises UnsupportedCheckpoint if it is not there."""
    if name not in tensors:
        raise UnsupportedCheckpoint(f"the file is of another layout: it has no {name}")
    return tuple(tensors[name].shape)


def count_of(tensors: Tensors, pattern: str) -> int:
    """The largest number that the pattern finds at the start of a name, plus 1."""
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)

"""Converts the tensors of the published VAR transformer to a next-scale target.

Sizes come from the shapes. Also works with tensors on device "meta".
"""

from dataclasses import asdict

import torch

from models.errors import InvalidOption, UnsupportedCheckpoint
from models.published.image_layouts import Converted, Tensors, Told, count_of, shape_of
from models.store import check_shapes
from models.targets.next_scale.model import MODEL_TYPE, NextScaleConfig, NextScaleModel
from models.tokenizers.scales import PUBLISHED_SCALES

UNUSED = ("lvl_1L", "attn_bias_for_masking")  # follow from the scales
SCALE, GIVEN = "attn.scale_mul_1H11", "ada_gss"
LAYER = {
    "attention.qkv.weight": "attn.mat_qkv.weight",
    "attention.q_bias": "attn.q_bias",
    "attention.v_bias": "attn.v_bias",
    "attention.out.weight": "attn.proj.weight",
    "attention.out.bias": "attn.proj.bias",
    "up.weight": "ffn.fc1.weight",
    "up.bias": "ffn.fc1.bias",
    "down.weight": "ffn.fc2.weight",
    "down.bias": "ffn.fc2.bias",
}
REST = {
    "class_embed.weight": "class_emb.weight",
    "level_embed": "lvl_embed.weight",
    "input_proj.weight": "word_embed.weight",
    "input_proj.bias": "word_embed.bias",
    "last_modulation.weight": "head_nm.ada_lin.1.weight",
    "last_modulation.bias": "head_nm.ada_lin.1.bias",
    "head.weight": "head.weight",
    "head.bias": "head.bias",
}


def next_scale_target(tensors: Tensors, told: Told) -> Converted:
    """VAR's class-conditional transformer, with shared or separate modulations."""
    config = _config(tensors, told)
    left = {n: t for n, t in tensors.items() if n not in UNUSED and not n.endswith("zero_k_bias")}
    made = _renamed(left, REST, "", "")
    places, first = _take(left, "pos_1LC")[0].clone(), _take(left, "pos_start")[0]
    places[: len(first)] += first  # both are added to the places of the class
    made["place_embed"] = places
    if config.shared_modulation:
        made |= _renamed(left, _modulation("shared_ada_lin"), "", "")
    for index in range(config.num_layers):
        theirs, ours = f"blocks.{index}.", f"layers.{index}."
        made |= _renamed(left, LAYER, theirs, ours)
        if config.unit_qk:
            made[f"{ours}attention.log_scale"] = _take(left, f"{theirs}{SCALE}").flatten()
        if config.shared_modulation:
            made[f"{ours}offsets"] = _take(left, f"{theirs}{GIVEN}")[0, 0]
        else:
            made |= _renamed(left, _modulation("ada_lin"), theirs, ours)
    if left:
        raise UnsupportedCheckpoint(f"the file has a tensor of no known use: {next(iter(left))}")
    with torch.device("meta"):
        check_shapes(made, NextScaleModel(config), "the file")
    return Converted(model_type=MODEL_TYPE, config=asdict(config), tensors=made)


def _config(tensors: Tensors, told: Told) -> NextScaleConfig:
    vocab_size, width = shape_of(tensors, "head.weight")
    unit, scales = f"blocks.0.{SCALE}" in tensors, told.scales or PUBLISHED_SCALES
    places, known = shape_of(tensors, "pos_1LC")[1], sum(side**2 for side in scales)
    if places != known:
        raise InvalidOption("scales", scales, f"sides whose squares make {places}, not {known}")
    heads = shape_of(tensors, f"blocks.0.{SCALE}")[1] if unit else told.heads or width // 64
    if unit and told.heads not in (None, heads):
        raise InvalidOption("heads", told.heads, f"the file has {heads}")
    return NextScaleConfig(
        vocab_size=vocab_size,
        code_width=shape_of(tensors, "word_embed.weight")[1],
        num_classes=shape_of(tensors, "class_emb.weight")[0] - 1,
        scales=scales,
        width=width,
        inner_width=shape_of(tensors, "blocks.0.ffn.fc1.weight")[0],
        num_layers=count_of(tensors, r"blocks\.(\d+)\."),
        num_heads=heads,
        shared_modulation="shared_ada_lin.1.weight" in tensors,
        unit_qk=unit,
    )


def _modulation(name: str) -> dict[str, str]:
    return {f"modulation.{kind}": f"{name}.1.{kind}" for kind in ("weight", "bias")}


def _renamed(
    left: dict[str, torch.Tensor], names: dict[str, str], theirs: str, ours: str
) -> dict[str, torch.Tensor]:
    """Take tensors out of `left`, by their published names after a prefix."""
    return {f"{ours}{own}": _take(left, f"{theirs}{name}") for own, name in names.items()}


def _take(left: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in left:
        raise UnsupportedCheckpoint(f"the file lacks the tensor {name}")
    return left.pop(name)

"""A next-scale target's weights, ready to run on one device.

Letters: L places of all maps, K classes, D width, H heads, d width of a head.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from models.compute.linear import Linear, Scratch, make_linear
from models.targets.next_scale.model import MAX_LOG_SCALE, PLAIN_SCALE, NextScaleConfig

Get = Callable[[str], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer. `offsets` are added to a shared modulation; otherwise it has `modulation`."""

    offsets: torch.Tensor | None  # [6, D]
    modulation: Linear | None
    qkv: Linear
    qk_norm: torch.Tensor | None  # [2 H, d] factors of queries and keys with length 1
    out: Linear
    up: Linear
    down: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleWeights:
    """All parameters of the target."""

    classes: torch.Tensor  # [K + 1, D]
    places: torch.Tensor  # [L, D]
    project: Linear
    modulation: Linear | None  # where layers share one
    blocks: tuple[Block, ...]
    last: Linear
    head: Linear


def assemble(
    config: NextScaleConfig,
    tensors: Mapping[str, torch.Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> ScaleWeights:
    """The weights from the state of a `NextScaleModel`."""
    make = partial(make_linear, scratch=Scratch())

    def get(name: str) -> torch.Tensor:
        return tensors[name].to(device=device, dtype=dtype)

    def linear(name: str) -> Linear:
        return make(get(f"{name}.weight"), get(f"{name}.bias"))

    def block(index: int) -> Block:
        ours, shared = f"layers.{index}", config.shared_modulation
        weight, bias = _qkv(config, get, f"{ours}.attention")
        return Block(
            offsets=get(f"{ours}.offsets") if shared else None,
            modulation=None if shared else linear(f"{ours}.modulation"),
            qkv=make(weight, bias),
            qk_norm=_qk_norm(config, get(f"{ours}.attention.log_scale"))
            if config.unit_qk
            else None,
            out=linear(f"{ours}.attention.out"),
            up=linear(f"{ours}.up"),
            down=linear(f"{ours}.down"),
        )

    levels = config.levels().to(device)
    places = get("place_embed").float() + get("level_embed").float()[levels]
    return ScaleWeights(
        classes=get("class_embed.weight"),
        places=places.to(dtype),
        project=linear("input_proj"),
        modulation=linear("modulation") if config.shared_modulation else None,
        blocks=tuple(block(index) for index in range(config.num_layers)),
        last=linear("last_modulation"),
        head=linear("head"),
    )


def _qkv(config: NextScaleConfig, get: Get, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Stacked matrix and bias. Attention divides by √d; other scales are included here."""
    weight = get(f"{name}.qkv.weight")
    query, value = get(f"{name}.q_bias"), get(f"{name}.v_bias")
    bias = torch.cat([query, torch.zeros_like(query), value])
    if not config.unit_qk:
        weight, bias = weight.clone(), bias.clone()
        weight[: config.width] *= PLAIN_SCALE
        bias[: config.width] *= PLAIN_SCALE
    return weight, bias


def _qk_norm(config: NextScaleConfig, log_scale: torch.Tensor) -> torch.Tensor:
    """The factors: the head's scale times √d (attention divides by it) for queries, 1 for keys."""
    head_dim = config.width // config.num_heads
    # Python's exponential: torch's exp differs in the last bit between kinds of CPU.
    scales = [math.exp(min(value, MAX_LOG_SCALE)) for value in log_scale.float().tolist()]
    queries = torch.tensor(scales, device=log_scale.device) * math.sqrt(head_dim)
    return torch.cat([queries, torch.ones_like(queries)])[:, None].repeat(1, head_dim)

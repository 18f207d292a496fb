"""A decoder's weights: their names and shapes in a checkpoint, and how ours are made of them.

Query, key and value matrices are stacked, and so are gate and up. The two halves of a head's
rotated dimensions are interleaved, so that a rotation is one complex product.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from models.config import DecoderConfig
from models.linear import Linear, Scratch, make_linear

Read = Callable[[str], torch.Tensor]  # a checkpoint's tensor of this name
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block; norms are float32, `qk_norm` is [Hq + Hkv, head_dim]."""

    attention_norm: torch.Tensor
    qkv: Linear
    qk_norm: torch.Tensor | None
    out: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All of a decoder's parameters, ready to run on one device."""

    embedding: torch.Tensor  # [V, width]
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    head: Linear


def shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of this configuration has, by Hugging Face's names."""
    wanted: dict[str, tuple[int, ...]] = {
        EMBEDDING: (config.vocab_size, config.width),
        NORM: (config.width,),
    }
    if not config.tied:
        wanted[HEAD] = (config.vocab_size, config.width)
    for index in range(config.num_layers):
        for name, shape in _layer_shapes(config).items():
            wanted[f"model.layers.{index}.{name}"] = shape
    return wanted


def _layer_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    width, inner = config.width, config.inner_width
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    matrices = {
        "self_attn.q_proj": (heads, width, config.qkv_bias),
        "self_attn.k_proj": (kv_heads, width, config.qkv_bias),
        "self_attn.v_proj": (kv_heads, width, config.qkv_bias),
        "self_attn.o_proj": (width, heads, config.out_bias),
        "mlp.gate_proj": (inner, width, config.mlp_bias),
        "mlp.up_proj": (inner, width, config.mlp_bias),
        "mlp.down_proj": (width, inner, config.mlp_bias),
    }
    wanted: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs, biased) in matrices.items():
        wanted[f"{name}.weight"] = (outputs, inputs)
        if biased:
            wanted[f"{name}.bias"] = (outputs,)
    wanted |= {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
    if config.qk_norm:
        wanted["self_attn.q_norm.weight"] = wanted["self_attn.k_norm.weight"] = (config.head_dim,)
    return wanted


def assemble(
    config: DecoderConfig, read: Read, *, dtype: torch.dtype, device: torch.device
) -> Weights:
    """Our weights from a checkpoint's, one layer at a time."""
    scratch = Scratch()

    def get(name: str) -> torch.Tensor:
        return read(name).to(device=device, dtype=dtype)

    embedding = get(EMBEDDING)
    head = embedding if config.tied else get(HEAD)
    return Weights(
        embedding=embedding,
        layers=tuple(
            _layer(config, partial(_below, get, f"model.layers.{index}"), scratch)
            for index in range(config.num_layers)
        ),
        norm=get(NORM).float(),
        head=make_linear(head, None, scratch),
    )


def _below(get: Read, prefix: str, name: str) -> torch.Tensor:
    return get(f"{prefix}.{name}")


def _layer(config: DecoderConfig, get: Read, scratch: Scratch) -> Layer:
    def stacked(*names: str, biased: bool, rotated: tuple[str, ...] = ()) -> Linear:
        def part(name: str, kind: str) -> torch.Tensor:
            tensor = get(f"{name}.{kind}")
            return interleave(tensor, config.head_dim) if name in rotated else tensor

        weight = torch.cat([part(name, "weight") for name in names])
        bias = torch.cat([part(name, "bias") for name in names]) if biased else None
        return make_linear(weight, bias, scratch)

    query, key = "self_attn.q_proj", "self_attn.k_proj"
    return Layer(
        attention_norm=get("input_layernorm.weight").float(),
        qkv=stacked(query, key, "self_attn.v_proj", biased=config.qkv_bias, rotated=(query, key)),
        qk_norm=_qk_norm(config, get) if config.qk_norm else None,
        out=stacked("self_attn.o_proj", biased=config.out_bias),
        mlp_norm=get("post_attention_layernorm.weight").float(),
        gate_up=stacked("mlp.gate_proj", "mlp.up_proj", biased=config.mlp_bias),
        down=stacked("mlp.down_proj", biased=config.mlp_bias),
    )


def _qk_norm(config: DecoderConfig, get: Read) -> torch.Tensor:
    heads = {"q_norm": config.num_heads, "k_norm": config.num_kv_heads}
    return torch.cat(
        [
            interleave(get(f"self_attn.{name}.weight"), config.head_dim).float().expand(number, -1)
            for name, number in heads.items()
        ]
    )


def interleave(tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows 0, D/2, 1, D/2 + 1, ... of each head, from [H * D, ...]."""
    halves = tensor.view(-1, 2, head_dim // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A weight drawn so that activations and logits are of order one; depends on name and seed."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    drawn = torch.randn(shape, generator=generator)
    if name.endswith("norm.weight"):
        return 1 + 0.1 * drawn
    if len(shape) == 1:
        return 0.1 * drawn
    return drawn if name == EMBEDDING else drawn * shape[1] ** -0.5

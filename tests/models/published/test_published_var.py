"""A file of the published VAR transformer's names and shapes becomes a target that computes the
same; the published formulas are written out here on the published names.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from models.errors import InvalidOption, UnsupportedCheckpoint
from models.published.image_layouts import Told
from models.published.var import next_scale_target
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel

WIDTH, HEADS, DEPTH, CODE, VOCAB, CLASSES, SCALES = 32, 2, 2, 16, 64, 3, (1, 2, 3, 4)
LENGTH = sum(side**2 for side in SCALES)
TOLD = Told(scales=SCALES, heads=HEADS)


def names(shared: bool, unit: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file."""
    out = {
        "word_embed.weight": (WIDTH, CODE), "word_embed.bias": (WIDTH,),
        "class_emb.weight": (CLASSES + 1, WIDTH), "pos_start": (1, 1, WIDTH),
        "pos_1LC": (1, LENGTH, WIDTH), "lvl_embed.weight": (len(SCALES), WIDTH),
        "lvl_1L": (1, LENGTH), "attn_bias_for_masking": (1, 1, LENGTH, LENGTH),
        "head_nm.ada_lin.1.weight": (2 * WIDTH, WIDTH), "head_nm.ada_lin.1.bias": (2 * WIDTH,),
        "head.weight": (VOCAB, WIDTH), "head.bias": (VOCAB,),
    }  # fmt: skip
    six = {"weight": (6 * WIDTH, WIDTH), "bias": (6 * WIDTH,)}
    if shared:
        out |= {f"shared_ada_lin.1.{kind}": shape for kind, shape in six.items()}
    for i in range(DEPTH):
        block = {
            "attn.mat_qkv.weight": (3 * WIDTH, WIDTH), "attn.q_bias": (WIDTH,),
            "attn.v_bias": (WIDTH,), "attn.zero_k_bias": (WIDTH,),
            "attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,),
            "ffn.fc1.weight": (4 * WIDTH, WIDTH), "ffn.fc1.bias": (4 * WIDTH,),
            "ffn.fc2.weight": (WIDTH, 4 * WIDTH), "ffn.fc2.bias": (WIDTH,),
        }  # fmt: skip
        if unit:
            block["attn.scale_mul_1H11"] = (1, HEADS, 1, 1)
        if shared:
            block["ada_gss"] = (1, 1, 6, WIDTH)
        else:
            block |= {f"ada_lin.1.{kind}": shape for kind, shape in six.items()}
        out |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return out


def file_of(shared: bool, unit: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    made = {
        name: torch.randn(shape, generator=generator) * shape[-1] ** -0.5
        for name, shape in names(shared, unit).items()
    }
    for i in range(DEPTH):
        made[f"blocks.{i}.attn.zero_k_bias"].zero_()
        if unit:  # one head beyond the largest scale
            made[f"blocks.{i}.attn.scale_mul_1H11"] = torch.tensor([1.0, 6.0]).view(1, 2, 1, 1)
    return made


def published(t, klass, inputs):
    """Logits [L, V] of one image whose maps read `inputs` [L, C]."""
    level = torch.repeat_interleave(torch.tensor([side**2 for side in SCALES]))
    condition = t["class_emb.weight"][klass]
    x = F.linear(inputs, t["word_embed.weight"], t["word_embed.bias"])
    x[:1] = condition + t["pos_start"][0]
    x = x + t["lvl_embed.weight"][level] + t["pos_1LC"][0]
    told, bias = F.silu(condition), torch.zeros(LENGTH, LENGTH)
    bias[level[:, None] < level] = -torch.inf
    for i in range(DEPTH):
        b = {
            n.removeprefix(f"blocks.{i}."): v for n, v in t.items() if n.startswith(f"blocks.{i}.")
        }
        if "ada_gss" in b:
            six = F.linear(told, t["shared_ada_lin.1.weight"], t["shared_ada_lin.1.bias"])
            six = six.view(6, WIDTH) + b["ada_gss"][0, 0]
        else:
            six = F.linear(told, b["ada_lin.1.weight"], b["ada_lin.1.bias"]).view(6, WIDTH)
        gamma1, gamma2, scale1, scale2, shift1, shift2 = six
        x = x + gamma1 * attention(
            b, F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale1) + shift1, bias
        )
        y = F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale2) + shift2
        y = F.gelu(F.linear(y, b["ffn.fc1.weight"], b["ffn.fc1.bias"]), approximate="tanh")
        x = x + gamma2 * F.linear(y, b["ffn.fc2.weight"], b["ffn.fc2.bias"])
    last = F.linear(told, t["head_nm.ada_lin.1.weight"], t["head_nm.ada_lin.1.bias"])
    scale, shift = last.view(2, WIDTH)
    x = F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale) + shift
    return F.linear(x, t["head.weight"], t["head.bias"])


def attention(b, x, bias):
    qkv = F.linear(x, b["attn.mat_qkv.weight"])
    qkv = qkv + torch.cat([b["attn.q_bias"], torch.zeros(WIDTH), b["attn.v_bias"]])
    query, key, value = qkv.view(LENGTH, 3, HEADS, -1).permute(1, 2, 0, 3)
    if "attn.scale_mul_1H11" in b:
        scale = b["attn.scale_mul_1H11"][0].clamp(max=math.log(100)).exp()
        query, key = query / query.norm(dim=-1, keepdim=True), key / key.norm(dim=-1, keepdim=True)
        query = query * scale
    else:
        query = query * 0.25 / math.sqrt(WIDTH // HEADS)
    read = (query @ key.transpose(1, 2) + bias).softmax(-1) @ value
    out = read.transpose(0, 1).reshape(LENGTH, WIDTH)
    return F.linear(out, b["attn.proj.weight"], b["attn.proj.bias"])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_a_converted_file_computes_the_published_formulas(shared, unit) -> None:
    tensors = file_of(shared, unit)
    made = next_scale_target(tensors, TOLD)
    config = NextScaleConfig(**made.config)
    assert (config.shared_modulation, config.unit_qk) == (shared, unit)
    model = NextScaleModel(config).eval().requires_grad_(False)
    model.load_state_dict(made.tensors)
    inputs = torch.randn(2, LENGTH, CODE, generator=torch.Generator().manual_seed(4))
    found = model(torch.tensor([1, CLASSES]), inputs)
    expected = torch.stack(
        [published(tensors, k, x) for k, x in zip((1, CLASSES), inputs, strict=True)]
    )
    assert expected.std() > 0.3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_published_sizes() -> None:
    """VAR-d16 on 256 pixels: 310 million parameters."""
    with torch.device("meta"):
        model = NextScaleModel(
            NextScaleConfig(
                vocab_size=4096, code_width=32, num_classes=1000,
                scales=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16), width=1024, inner_width=4096,
                num_layers=16, num_heads=16, shared_modulation=False,
            )
        )  # fmt: skip
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 310


def test_what_does_not_fit_is_told() -> None:
    tensors = file_of(False, True)
    with pytest.raises(InvalidOption, match="sides whose squares make 30, not 680"):
        next_scale_target(tensors, Told())
    with pytest.raises(InvalidOption, match="heads=4 is not accepted: the file has 2"):
        next_scale_target(tensors, Told(scales=SCALES, heads=4))
    with pytest.raises(UnsupportedCheckpoint, match="no known use: more"):
        next_scale_target(tensors | {"more": torch.zeros(1)}, TOLD)
    del tensors["blocks.1.ffn.fc2.bias"]
    with pytest.raises(UnsupportedCheckpoint, match=r"lacks the tensor blocks.1.ffn.fc2.bias"):
        next_scale_target(tensors, TOLD)

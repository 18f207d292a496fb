"""The published image models, written out by their own tensor names, with random weights.

Straight from the papers' formulas and the public description of the files: what a converted
checkpoint must compute. Sizes are small; names and ranks are those of the real files.
"""

import math

import torch
from torch.nn import functional as F

Tensors = dict[str, torch.Tensor]
MULTIPLIERS, CHANNELS = (1, 2), 32
SIZES = {False: (16, 8, 64), True: (16, 16, 64)}  # VAR's or not: latent channels, code width, codes


class Maker:
    """Draws tensors by name."""

    def __init__(self, seed: int) -> None:
        self.tensors: Tensors = {}
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, name: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> None:
        drawn = torch.randn(shape, generator=self._generator)
        self.tensors[name] = shift + scale * drawn

    def conv(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        fan = inputs * kernel * kernel
        self.draw(f"{name}.weight", outputs, inputs, kernel, kernel, scale=fan**-0.5)
        self.draw(f"{name}.bias", outputs, scale=0.1)

    def norm(self, name: str, width: int) -> None:
        self.draw(f"{name}.weight", width, scale=0.2, shift=1.0)
        self.draw(f"{name}.bias", width, scale=0.1)

    def residual(self, name: str, inputs: int, outputs: int) -> None:
        self.norm(f"{name}.norm1", inputs)
        self.conv(f"{name}.conv1", inputs, outputs, 3)
        self.norm(f"{name}.norm2", outputs)
        self.conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            self.conv(f"{name}.nin_shortcut", inputs, outputs, 1)

    def attention(self, name: str, width: int, fused: bool) -> None:
        self.norm(f"{name}.norm", width)
        for part in ("qkv",) if fused else ("q", "k", "v"):
            self.conv(f"{name}.{part}", width, width * len(part), 1)
        self.conv(f"{name}.proj_out", width, width, 1)


def names_of(var: bool) -> tuple[str, str, str, str, tuple[str, str, str]]:
    """Levels down, levels up, residual blocks, attention blocks, the three in the middle."""
    if var:
        return "down", "up", "block", "attn", ("block_1", "attn_1", "block_2")
    return "conv_blocks", "conv_blocks", "res", "attn", ("0", "1", "2")


def conv_tensors(var: bool, seed: int = 0) -> Tensors:
    """A VQ-16 or a VQVAE of two levels with two blocks."""
    make, last = Maker(seed), len(MULTIPLIERS) - 1
    down, up, block, attn, middle = names_of(var)
    (latent, code_width, codes), kernel = SIZES[var], 3 if var else 1
    widths = [CHANNELS * m for m in MULTIPLIERS]
    make.conv("encoder.conv_in", 3, CHANNELS, 3)
    width = CHANNELS
    for level, out in enumerate(widths):
        for index in range(2):
            make.residual(f"encoder.{down}.{level}.{block}.{index}", width, out)
            width = out
            if level == last:
                make.attention(f"encoder.{down}.{level}.{attn}.{index}", out, var)
        if level != last:
            make.conv(f"encoder.{down}.{level}.downsample.conv", out, out, 3)
    for side in ("encoder", "decoder"):
        make.residual(f"{side}.mid.{middle[0]}", width, width)
        make.attention(f"{side}.mid.{middle[1]}", width, var)
        make.residual(f"{side}.mid.{middle[2]}", width, width)
    make.norm("encoder.norm_out", width)
    make.conv("encoder.conv_out", width, latent, 3)
    make.conv("decoder.conv_in", latent, width, 3)
    for level in reversed(range(last + 1)):
        name = f"decoder.{up}.{level if var else last - level}"
        for index in range(3):
            make.residual(f"{name}.{block}.{index}", width, widths[level])
            width = widths[level]
            if level == last:
                make.attention(f"{name}.{attn}.{index}", width, var)
        if level:
            make.conv(f"{name}.upsample.conv", width, width, 3)
    make.norm("decoder.norm_out", width)
    make.conv("decoder.conv_out", width, 3, 3)
    make.conv("quant_conv", latent, code_width, kernel)
    make.conv("post_quant_conv", code_width, latent, kernel)
    make.draw("quantize.embedding.weight", codes, code_width, scale=0.5)
    return make.tensors


def vq16(seed: int = 0) -> Tensors:
    return conv_tensors(False, seed) | {"quantize.codebook_used": torch.zeros(65536)}


def vqvae(seed: int = 0, scales: int = 4) -> Tensors:
    make = Maker(seed + 1)
    for index in range(4):
        make.conv(f"quantize.quant_resi.qresi_ls.{index}", SIZES[True][1], SIZES[True][1], 3)
    hits = {"quantize.ema_vocab_hit_SV": torch.zeros(scales, SIZES[True][2])}
    return conv_tensors(True, seed) | make.tensors | hits


def conv(t: Tensors, name: str, x: torch.Tensor, **options) -> torch.Tensor:
    weight = t[f"{name}.weight"]
    options.setdefault("padding", weight.shape[-1] // 2)
    return F.conv2d(x, weight, t[f"{name}.bias"], **options)


def norm(t: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.group_norm(x, 32, t[f"{name}.weight"], t[f"{name}.bias"], 1e-6)


def residual(t: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    y = conv(t, f"{name}.conv1", F.silu(norm(t, f"{name}.norm1", x)))
    y = conv(t, f"{name}.conv2", F.silu(norm(t, f"{name}.norm2", y)))
    short = f"{name}.nin_shortcut"
    return y + (conv(t, short, x) if f"{short}.weight" in t else x)


def attention(t: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    y = norm(t, f"{name}.norm", x)
    if f"{name}.qkv.weight" in t:
        q, k, v = conv(t, f"{name}.qkv", y).flatten(2).chunk(3, dim=1)
    else:
        q, k, v = (conv(t, f"{name}.{part}", y).flatten(2) for part in "qkv")
    weights = (q.transpose(1, 2) @ k * q.shape[1] ** -0.5).softmax(-1)  # [B, to, from]
    return x + conv(t, f"{name}.proj_out", (v @ weights.transpose(1, 2)).view(x.shape))


def middle_of(t: Tensors, var: bool, side: str, x: torch.Tensor) -> torch.Tensor:
    first, second, third = names_of(var)[4]
    x = attention(t, f"{side}.mid.{second}", residual(t, f"{side}.mid.{first}", x))
    return residual(t, f"{side}.mid.{third}", x)


def encoded(t: Tensors, var: bool, x: torch.Tensor) -> torch.Tensor:
    """Features before quantisation."""
    down, _, block, attn, _ = names_of(var)
    x = conv(t, "encoder.conv_in", x)
    for level in range(len(MULTIPLIERS)):
        for index in range(2):
            x = residual(t, f"encoder.{down}.{level}.{block}.{index}", x)
            if level == len(MULTIPLIERS) - 1:
                x = attention(t, f"encoder.{down}.{level}.{attn}.{index}", x)
        if level < len(MULTIPLIERS) - 1:
            padded = F.pad(x, (0, 1, 0, 1))
            x = conv(t, f"encoder.{down}.{level}.downsample.conv", padded, stride=2, padding=0)
    x = F.silu(norm(t, "encoder.norm_out", middle_of(t, var, "encoder", x)))
    return conv(t, "quant_conv", conv(t, "encoder.conv_out", x))


def decoded(t: Tensors, var: bool, features: torch.Tensor) -> torch.Tensor:
    """Pixels from quantised features."""
    _, up, block, attn, _ = names_of(var)
    x = conv(t, "decoder.conv_in", conv(t, "post_quant_conv", features))
    x, last = middle_of(t, var, "decoder", x), len(MULTIPLIERS) - 1
    for level in reversed(range(last + 1)):
        name = f"decoder.{up}.{level if var else last - level}"
        for index in range(3):
            x = residual(t, f"{name}.{block}.{index}", x)
            if level == last:
                x = attention(t, f"{name}.{attn}.{index}", x)
        if level:
            x = conv(t, f"{name}.upsample.conv", F.interpolate(x, scale_factor=2.0))
    return conv(t, "decoder.conv_out", F.silu(norm(t, "decoder.norm_out", x))).clamp(-1, 1)


def gpt(seed: int = 0, kv_heads: int = 4, vocab: int = 40, classes: int = 5) -> Tensors:
    """A class-conditional GPT of width 64, 2 layers, 4 heads of 16."""
    make = Maker(seed)
    make.draw("cls_embedding.embedding_table.weight", classes + 1, 64)
    make.draw("tok_embeddings.weight", vocab, 64)
    for index in range(2):
        layer = f"layers.{index}"
        make.draw(f"{layer}.attention.wqkv.weight", 64 + 32 * kv_heads, 64, scale=1 / 8)
        make.draw(f"{layer}.attention.wo.weight", 64, 64, scale=1 / 8)
        for name, shape in (("w1", (96, 64)), ("w3", (96, 64)), ("w2", (64, 96))):
            make.draw(f"{layer}.feed_forward.{name}.weight", *shape, scale=1 / 8)
        for name in ("attention_norm", "ffn_norm"):
            make.draw(f"{layer}.{name}.weight", 64, scale=0.2, shift=1.0)
    make.draw("norm.weight", 64, scale=0.2, shift=1.0)
    make.draw("output.weight", vocab, 64, scale=1 / 8)
    return make.tensors


def gpt_logits(t: Tensors, klass: int, tokens: list[int], side: int) -> torch.Tensor:
    """[1 + tokens, V]: the class first, then the tokens of a `side` x `side` grid."""
    x = torch.cat(
        [t["cls_embedding.embedding_table.weight"][klass][None], t["tok_embeddings.weight"][tokens]]
    )
    for index in range(2):
        x = x + _attended(t, f"layers.{index}", x, side)
        y = _rms(x, t[f"layers.{index}.ffn_norm.weight"])
        w1, w2, w3 = (t[f"layers.{index}.feed_forward.w{n}.weight"] for n in (1, 2, 3))
        x = x + (F.silu(y @ w1.T) * (y @ w3.T)) @ w2.T
    return _rms(x, t["norm.weight"]) @ t["output.weight"].T


def _attended(t: Tensors, layer: str, x: torch.Tensor, side: int) -> torch.Tensor:
    stacked = t[f"{layer}.attention.wqkv.weight"]
    kv = (len(stacked) - 64) // 2
    q, k, v = (_rms(x, t[f"{layer}.attention_norm.weight"]) @ stacked.T).split([64, kv, kv], dim=-1)
    queries, keys = (_turned(part, side) for part in (q, k))
    read = []
    for head in range(4):
        shared = head * (kv // 16) // 4
        lines = slice(16 * shared, 16 * shared + 16)
        scores = queries[:, 16 * head : 16 * head + 16] @ keys[:, lines].T / 4
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
        read.append(scores.softmax(-1) @ v[:, lines])
    return torch.cat(read, dim=-1) @ t[f"{layer}.attention.wo.weight"].T


def _turned(x: torch.Tensor, side: int) -> torch.Tensor:
    """Neighbouring pairs of each head turned by the place's row, then column; the class is 0."""
    out = torch.zeros_like(x)
    for position in range(1, len(x)):
        row, column = divmod(position - 1, side)
        for pair in range(x.shape[1] // 2):
            within = pair % 8
            angle = (row if within < 4 else column) * 10_000.0 ** -((within % 4) / 4)
            a, b = x[position, 2 * pair], x[position, 2 * pair + 1]
            out[position, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
            out[position, 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
    return out


def _rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight

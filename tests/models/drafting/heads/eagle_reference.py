"""EAGLE-3's published layout in plain torch, from the names in a folder's files: a reference.

Written from the description of the layout, apart from the code that runs drafters.
"""

import json
import math

import torch
from safetensors.torch import load_file


def norm(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotate(x, positions, theta):
    """x [H, N, D] at positions [N], halves rotated as in Hugging Face's Llama."""
    half = x.shape[-1] // 2
    speeds = theta ** (-torch.arange(half, dtype=x.dtype) / half)
    angles = positions[:, None] * speeds
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Reference:
    """A drafter in a folder; everything in float64."""

    def __init__(self, folder, target_embedding=None):
        raw = json.loads((folder / "config.json").read_text())
        self.raw = raw
        self.layer = raw.get("transformer_layer_config", raw)
        tensors = load_file(folder / "model.safetensors")
        self.d2t = tensors.pop("d2t", None)
        self.t2d = tensors.pop("t2d", None)
        self.tensors = {
            name.replace("midlayer.", "").replace("layers.0.", ""): value.double()
            for name, value in tensors.items()
        }
        self.eps = self.layer["rms_norm_eps"]
        if "embed_tokens.weight" not in self.tensors:
            self.tensors["embed_tokens.weight"] = target_embedding.double()

    def flag(self, name):
        return bool(self.raw.get(name, self.raw.get("eagle_config", {}).get(name, False)))

    def fuse(self, taps):
        """[N, D] from a list of [N, C]."""
        t = self.tensors
        if self.flag("fc_norm"):
            taps = [norm(x, t[f"fc_norm.{i}.weight"], self.eps) for i, x in enumerate(taps)]
        x = torch.cat(taps, dim=-1)
        if self.flag("norm_before_fc"):
            x = norm(x, t["input_norm.weight"], self.eps)
        return x @ t["fc.weight"].T

    def __call__(self, tokens, hidden, keys):
        """Logits [N, V] and states [N, D] of tokens [N] and hidden [N, D].

        `keys`: [N, N] bool, which of the others each one sees; positions follow from their number.
        """
        t, layer = self.tensors, self.layer
        embedded = norm(t["embed_tokens.weight"][tokens], t["input_layernorm.weight"], self.eps)
        normed = norm(hidden, t["hidden_norm.weight"], self.eps)
        residual = normed if self.flag("norm_before_residual") else hidden
        x = torch.cat([embedded, normed], dim=-1)
        heads, groups = layer["num_attention_heads"], layer["num_key_value_heads"]
        width = layer["head_dim"]
        q, k, v = (
            (x @ t[f"self_attn.{n}_proj.weight"].T).view(len(x), -1, width).transpose(0, 1)
            for n in "qkv"
        )
        positions = (keys.sum(-1) - 1).double()
        theta = layer["rope_theta"]
        q, k = rotate(q, positions, theta), rotate(k, positions, theta)
        k, v = (y.repeat_interleave(heads // groups, dim=0) for y in (k, v))
        scores = (q @ k.transpose(1, 2) / math.sqrt(width)).masked_fill(~keys, -torch.inf)
        read = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = residual + read @ t["self_attn.o_proj.weight"].T
        inner = norm(x, t["post_attention_layernorm.weight"], self.eps)
        gate = inner @ t["mlp.gate_proj.weight"].T
        up = inner @ t["mlp.up_proj.weight"].T
        x = x + (torch.nn.functional.silu(gate) * up) @ t["mlp.down_proj.weight"].T
        out = norm(x, t["norm.weight"], self.eps)
        logits = out @ t["lm_head.weight"].T
        if self.d2t is not None:
            ids = torch.arange(len(self.d2t)) + self.d2t
            whole = torch.full((len(x), layer["vocab_size"]), -torch.inf, dtype=x.dtype)
            whole[:, ids] = logits
            assert self.t2d.nonzero()[:, 0].tolist() == sorted(ids.tolist())
            logits = whole
        return logits, out if self.flag("norm_output") else x

    def follow(self, tokens, taps, drafted):
        """[K, V] the logits after a verified text, and after each of `drafted` but the last.

        tokens [n]; taps: the target's states of the first n - 1, a list of [n - 1, C].
        """
        inputs, hidden, found = list(tokens[1:]), self.fuse([x.double() for x in taps]), []
        for token in [*drafted]:
            count = len(inputs)
            keys = torch.ones(count, count, dtype=torch.bool).tril()
            logits, states = self(torch.tensor(inputs), hidden, keys)
            found.append(logits[-1])
            inputs.append(token)
            hidden = torch.cat([hidden, states[-1:]])
        return torch.stack(found)

"""Targets of texts: decoders of any configuration, with our kernels, torch's or adapted ones."""

from functools import cache
from typing import Any

import numpy as np
import torch

from models.targets.decoder.config import DecoderConfig, RotaryConfig
from models.targets.decoder.decoder import Decoder
from models.targets.target import Target

CONTEXT = 512
LLAMA3 = RotaryConfig(kind="llama3", factor=8.0, original_context_length=64)
ROTARIES = (RotaryConfig(), LLAMA3, RotaryConfig(kind="linear", factor=2.0))
DTYPES = (torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16)


def random_config(rng: np.random.Generator, **sizes: Any) -> DecoderConfig:
    """A decoder of any of the families that ours runs."""
    kv_heads, group = int(rng.choice([1, 2, 3])), int(rng.choice([1, 2, 3, 4]))
    head_dim = int(rng.choice([8, 12, 16, 24]))
    vocab_size = int(rng.choice([11, 27, 30, 52, 150]))
    has_end = rng.random() < 0.7
    return DecoderConfig(
        architecture="LlamaForCausalLM",
        **{
            "vocab_size": vocab_size,
            "width": int(rng.choice([24, 32, 40, 52])),
            "inner_width": int(rng.choice([36, 43, 48, 56])),
            "num_layers": int(rng.choice([1, 2, 3])),
            "num_heads": kv_heads * group,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "context_length": CONTEXT,
            "rotary": ROTARIES[int(rng.integers(len(ROTARIES)))],
            "qkv_bias": bool(rng.random() < 0.3),
            "out_bias": bool(rng.random() < 0.2),
            "mlp_bias": bool(rng.random() < 0.2),
            "qk_norm": bool(rng.random() < 0.3),
            "tied": bool(rng.random() < 0.4),
            "window": int(rng.choice([1, 3, 7, 20, 65])) if rng.random() < 0.4 else None,
            "eos_token_ids": (vocab_size - 1,) if has_end else (),
            **sizes,
        },
    )


def text_target(rng: np.random.Generator) -> Target:
    dtype = DTYPES[int(rng.integers(len(DTYPES)))]
    return Decoder.from_config(random_config(rng), int(rng.integers(1 << 30)), dtype=dtype)


def torch_target(rng: np.random.Generator) -> Target:
    """The same with torch's operations, as on a machine without our kernels' instructions."""
    return Decoder.from_config(random_config(rng), int(rng.integers(1 << 30)), kernels=False)


@cache
def adapted(family: str) -> Target:
    """In double precision, so that no tie is decided by rounding."""
    import transformers

    from models.targets.adapted.adapter import AdaptedTarget
    from tests.models import checkpoints

    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(checkpoints.OTHERS[family]())
    return AdaptedTarget(made.double().eval(), eos_token_ids=(2,))


def adapted_target(rng: np.random.Generator) -> Target:
    return adapted(str(rng.choice(["gpt2", "gpt-neox", "qwen2-half-windowed", "mamba"])))

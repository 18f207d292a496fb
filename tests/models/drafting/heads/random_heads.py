"""Small random targets, EAGLE-3 drafters and Medusa heads, in the folders users have."""

import json
from dataclasses import replace

import torch
from safetensors.torch import save_file

from models.drafting.heads.eagle_head import EagleConfig, EagleHead, shapes
from models.drafting.heads.files import target_head
from models.drafting.heads.hydra_head import HydraConfig, HydraHead
from models.drafting.heads.hydra_head import shapes as hydra_shapes
from models.drafting.heads.medusa_head import MedusaConfig, MedusaHead
from models.drafting.heads.medusa_head import shapes as medusa_shapes
from models.targets.decoder.config import DecoderConfig, RotaryConfig
from models.targets.decoder.weights import random_tensor
from models.targets.decoder.weights import shapes as decoder_shapes
from tests.models.decoders import CONFIG

TARGET = replace(CONFIG, num_layers=6, tied=True, eos_token_ids=(0,))
LAYER = DecoderConfig(
    architecture="LlamaForCausalLM",
    vocab_size=TARGET.vocab_size,
    width=24,
    inner_width=40,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    context_length=256,
    norm_eps=1e-5,
    rotary=RotaryConfig(original_context_length=256),
)
EAGLE = EagleConfig(
    layer=LAYER, draft_vocab_size=LAYER.vocab_size, target_width=TARGET.width, taps=(1, 3, 5)
)
MEDUSA = MedusaConfig(vocab_size=TARGET.vocab_size, width=TARGET.width, num_heads=3)

HYDRA = HydraConfig(vocab_size=TARGET.vocab_size, width=TARGET.width, embedded=12, num_heads=3)


def write_target(folder):
    """A Llama checkpoint with random weights and tied embeddings."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": TARGET.vocab_size,
        "hidden_size": TARGET.width,
        "intermediate_size": TARGET.inner_width,
        "num_hidden_layers": TARGET.num_layers,
        "num_attention_heads": TARGET.num_heads,
        "num_key_value_heads": TARGET.num_kv_heads,
        "head_dim": TARGET.head_dim,
        "max_position_embeddings": TARGET.context_length,
        "rms_norm_eps": TARGET.norm_eps,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(raw))
    tensors = {n: random_tensor(n, s, 0) for n, s in decoder_shapes(TARGET).items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def eagle_head(*, ids=None, seed=1, **flags):
    """A random drafter; `ids`: the tokens it can draft."""
    size = TARGET.vocab_size if ids is None else len(ids)
    config = replace(EAGLE, draft_vocab_size=size, **flags)
    tensors = {name: random_tensor(name, shape, seed) for name, shape in shapes(config).items()}
    return EagleHead(config=config, tensors=tensors, ids=None if ids is None else torch.tensor(ids))


def medusa_head(*, seed=1, ids=None, **values):
    """Random heads."""
    config = replace(MEDUSA, **values)
    wanted = medusa_shapes(config, None if ids is None else len(ids))
    tensors = {name: random_tensor(name, shape, seed) for name, shape in wanted.items()}
    return MedusaHead(
        config=config, tensors=tensors, ids=None if ids is None else torch.tensor(ids)
    )


def hydra_head(target, *, seed=1, **values):
    """Random heads of the target in a folder."""
    config = replace(HYDRA, **values)
    tensors = {name: random_tensor(name, s, seed) for name, s in hydra_shapes(config).items()}
    return HydraHead(config=config, tensors=tensors, output=target_head(target))

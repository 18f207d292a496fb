"""Writes EAGLE-3 drafters as folders that vLLM (layout of speculators) and SGLang load."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.drafting.folder_kind import SGLANG
from models.drafting.heads.eagle_head import HEAD, EagleConfig, EagleHead
from models.drafting.heads.eagle_layouts import FLAGS, IDS, KNOWN, about_target
from models.drafting.heads.files import OFFSETS
from models.errors import UnsupportedCheckpoint


def write_eagle(
    head: EagleHead, folder: Path, *, layout: str, target: Path, draft_tokens: int
) -> None:
    """Write a drafter's folder; `layout`: "speculators" or "sglang".

    Everything is explicit: the embedding and the output matrix are written, all flags are set.
    `draft_tokens`: how many tokens ahead a server should draft by default.

    Raises:
        UnsupportedCheckpoint: the layout cannot say what the drafter is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "speculators":
        config, prefix = _speculators_json(head, target, draft_tokens), "layers.0."
    else:
        config, prefix = _sglang_json(head), "midlayer."
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {_theirs(name, prefix): tensor for name, tensor in head.tensors.items()}
    if head.ids is not None:
        tensors[OFFSETS] = head.ids - torch.arange(len(head.ids))
        known = torch.zeros(head.config.layer.vocab_size, dtype=torch.bool)
        known[head.ids] = True
        tensors[KNOWN] = known
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def _theirs(name: str, prefix: str) -> str:
    return prefix + name.removeprefix("layer.") if name.startswith("layer.") else name


def _layer_json(config: EagleConfig) -> dict[str, Any]:
    layer = config.layer
    rotary: dict[str, Any] = {"rope_type": layer.rotary.kind, "rope_theta": layer.rotary.theta}
    if layer.rotary.kind != "default":
        rotary["factor"] = layer.rotary.factor
    if layer.rotary.kind == "llama3":
        rotary |= {
            "low_freq_factor": layer.rotary.low_freq_factor,
            "high_freq_factor": layer.rotary.high_freq_factor,
            "original_max_position_embeddings": layer.rotary.original_context_length,
        }
    return {
        "model_type": "qwen3" if layer.qk_norm else "llama",
        "vocab_size": layer.vocab_size,
        "hidden_size": layer.width,
        "intermediate_size": layer.inner_width,
        "num_hidden_layers": 1,
        "num_attention_heads": layer.num_heads,
        "num_key_value_heads": layer.num_kv_heads,
        "head_dim": layer.head_dim,
        "max_position_embeddings": layer.context_length,
        "rms_norm_eps": layer.norm_eps,
        "hidden_act": "silu",
        "attention_bias": layer.qkv_bias,
        "mlp_bias": layer.mlp_bias,
        "rope_theta": layer.rotary.theta,
        "rope_scaling": None if layer.rotary.kind == "default" else rotary,
        "rope_parameters": rotary,
        "tie_word_embeddings": False,
    }


def _flags_json(config: EagleConfig) -> dict[str, Any]:
    flags = {theirs: getattr(config, name) for name, theirs in FLAGS.items()}
    sizes = {
        "draft_vocab_size": config.draft_vocab_size,
        "target_hidden_size": config.target_width,
    }
    return {**sizes, **flags}


def _speculators_json(head: EagleHead, target: Path, draft_tokens: int) -> dict[str, Any]:
    method = {"proposal_type": "greedy", "speculative_tokens": draft_tokens}
    architectures = about_target(target).get("architectures") or []
    return {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "speculators_config": {
            "algorithm": "eagle3",
            "proposal_methods": [method],
            "default_proposal_method": "greedy",
            "verifier": {"name_or_path": str(target), "architectures": architectures},
        },
        "transformer_layer_config": _layer_json(head.config),
        IDS: list(head.config.taps),
        **_flags_json(head.config),
        "torch_dtype": _dtype_name(head),
    }


def _sglang_json(head: EagleHead) -> dict[str, Any]:
    config = head.config
    for name in ("norm_before_residual", "norm_before_fc"):
        if getattr(config, name):
            raise UnsupportedCheckpoint(f"SGLang's layout has no {name}; export as speculators")
    if min(config.taps) < 1:
        raise UnsupportedCheckpoint("SGLang's layout cannot name the target's embedding as a tap")
    return {
        "architectures": [SGLANG],
        **_layer_json(config),
        **_flags_json(config),
        "eagle_config": {IDS: [tap - 1 for tap in config.taps], "use_aux_hidden_state": True},
        "torch_dtype": _dtype_name(head),
    }


def _dtype_name(head: EagleHead) -> str:
    return str(head.tensors[HEAD].dtype).removeprefix("torch.")

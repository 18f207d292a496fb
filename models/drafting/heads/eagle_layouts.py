"""The folders of EAGLE-3 drafters, in the layouts of speculators (vLLM) and of SGLang.

Both number the target's layers by what they read: id j is the input of layer j, the output of the
layer before it, as in `Readout`. SGLang's `eagle_config` counts by outputs, so id j is j + 1 here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.drafting.folder_kind import refuse_pickles
from models.drafting.heads.eagle_head import (
    EMBEDDING,
    HEAD,
    EagleConfig,
    EagleHead,
    shapes,
)
from models.drafting.heads.files import (
    OFFSETS,
    check_tensors,
    folder_tensors,
    ids_of,
    target_embedding,
    target_head,
)
from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import Json, is_known, parse_config, read_json

KNOWN = "t2d"  # which of the target's ids can be drafted
IDS = "eagle_aux_hidden_state_layer_ids"
LEFT_OUT = ("verifier_lm_head.weight", "verifier_norm.weight")  # the target's own, in some files
# transformers' own sizes: speculators leaves out what equals them.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_attention_heads": 32,
        "rms_norm_eps": 1e-6,
    },
    "qwen3": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
    },
}
FLAGS = {
    "norm_before_residual": "norm_before_residual",
    "norm_before_fc": "norm_before_fc",
    "norm_taps": "fc_norm",
    "norm_output": "norm_output",
}  # EagleConfig's names -> config.json's


def read_eagle(folder: Path, target: Path) -> EagleHead:
    """The drafter in a folder, for the target in another one.

    What the folder leaves out (embedding, output matrix) is taken from the target.

    Raises:
        UnsupportedCheckpoint: a field or tensor is missing, wrong, or not supported.
    """
    refuse_pickles(folder)
    raw, about = read_json(folder / "config.json"), about_target(target)
    where = str(folder / "config.json")
    config = (
        _speculators(raw, about, where) if "speculators_model_type" in raw else _sglang(raw, about)
    )
    _check_fit(config, about, folder, target)
    tensors = {_ours(name): tensor for name, tensor in folder_tensors(folder).items()}
    offsets = tensors.pop(OFFSETS, None)
    for name in (KNOWN, *LEFT_OUT):
        tensors.pop(name, None)
    wanted = shapes(config)
    check_tensors(tensors, wanted, (EMBEDDING, HEAD), folder)
    if EMBEDDING not in tensors:
        tensors[EMBEDDING] = _fitting(target_embedding(target), EMBEDDING, wanted, folder, target)
    if HEAD not in tensors:
        shared = tensors[EMBEDDING] if config.layer.tied else target_head(target)
        tensors[HEAD] = _fitting(shared, HEAD, wanted, folder, target)
    config = replace(config, layer=replace(config.layer, tied=False))
    return EagleHead(config=config, tensors=tensors, ids=_ids(offsets, config, folder))


def about_target(target: Path) -> Json:
    """The configuration of a target's text model."""
    raw = read_json(target / "config.json")
    text = raw.get("text_config")
    return text if isinstance(text, dict) else raw


def _speculators(raw: Json, target: Json, where: str) -> EagleConfig:
    kind = raw.get("speculators_model_type")
    if kind != "eagle3":
        told = "of the layout of speculators, only eagle3 drafters are supported"
        raise UnsupportedCheckpoint(f"{where}: speculators_model_type={kind!r}: {told}")
    if raw.get("parallel_drafting"):
        raise UnsupportedCheckpoint(f"{where}: parallel_drafting (P-EAGLE) is not supported")
    if "norm_before_residual" not in raw:
        raise UnsupportedCheckpoint(
            f"{where}: norm_before_residual is missing, and servers disagree on its default: "
            "speculators' is false, vLLM's true. Add the one that the drafter was trained with"
        )
    layer = raw.get("transformer_layer_config")
    if not isinstance(layer, dict):
        raise UnsupportedCheckpoint(f"{where}: transformer_layer_config is missing")
    return _config(layer, raw, target, raw.get(IDS), where)


def _sglang(raw: Json, target: Json) -> EagleConfig:
    nested = raw.get("eagle_config") or {}
    ids = nested.get(IDS)
    ids = raw.get(IDS) if ids is None else [number + 1 for number in ids]
    return _config(raw, {**raw, **nested}, target, ids, "config.json")


def _config(layer: Json, flags: Json, target: Json, ids: Any, where: str) -> EagleConfig:
    plain = {
        **DEFAULTS.get(str(layer.get("model_type", "llama")), {}),
        "max_position_embeddings": target.get("max_position_embeddings", 2048),
        **layer,
        "architectures": ["LlamaForCausalLM"],
    }
    if plain.get("num_hidden_layers", 1) != 1:
        told = f"num_hidden_layers={plain['num_hidden_layers']}; drafters of one layer work"
        raise UnsupportedCheckpoint(f"{where}: {told}")
    if not is_known(plain):
        told = "its layer is none of Llama's or Qwen 3's, with their rotary embeddings"
        raise UnsupportedCheckpoint(f"{where}: {told}")
    parsed = parse_config({**plain, "num_hidden_layers": 1}, {})
    size = flags.get("draft_vocab_size")
    layers = int(target.get("num_hidden_layers", 0))
    taps = (2, layers // 2, layers - 3) if ids is None else tuple(int(number) for number in ids)
    return EagleConfig(
        layer=replace(parsed, window=None, eos_token_ids=()),
        draft_vocab_size=parsed.vocab_size if size is None else int(size),
        target_width=int(flags.get("target_hidden_size") or parsed.width),
        taps=taps,
        **{name: bool(flags.get(theirs, False)) for name, theirs in FLAGS.items()},
    )


def _check_fit(config: EagleConfig, target: Json, folder: Path, path: Path) -> None:
    fields = (("hidden_size", config.target_width), ("vocab_size", config.layer.vocab_size))
    for name, made_for in fields:
        if target.get(name) not in (None, made_for):
            raise UnsupportedCheckpoint(
                f"drafter {str(folder)!r} is made for a target with {name}={made_for}; "
                f"that of {str(path)!r} is {target[name]}"
            )
    layers = target.get("num_hidden_layers")
    if layers is not None and not all(0 <= tap < layers for tap in config.taps):
        raise UnsupportedCheckpoint(
            f"drafter {str(folder)!r} reads layers {config.taps}; "
            f"the target's are 0 to {layers - 1}"
        )


def _ours(name: str) -> str:
    name = name.removeprefix("model.")
    for prefix in ("midlayer.", "layers.0."):
        if name.startswith(prefix):
            return "layer." + name.removeprefix(prefix)
    return name


def _fitting(
    tensor: torch.Tensor,
    name: str,
    wanted: Mapping[str, tuple[int, ...]],
    folder: Path,
    target: Path,
) -> torch.Tensor:
    if tuple(tensor.shape) != wanted[name]:
        raise UnsupportedCheckpoint(
            f"drafter {str(folder)!r} has no {name}, and that of target {str(target)!r} does not "
            f"fit: it is {tuple(tensor.shape)}, needed is {wanted[name]}"
        )
    return tensor


def _ids(offsets: torch.Tensor | None, config: EagleConfig, folder: Path) -> torch.Tensor | None:
    """[K] the target's ids of the drafted tokens; None: they are the same."""
    count, vocab_size = config.draft_vocab_size, config.layer.vocab_size
    if offsets is None and count != vocab_size:
        told = f"draft_vocab_size is {count}, the target's vocabulary {vocab_size}"
        raise UnsupportedCheckpoint(f"{folder} lacks the tensor {OFFSETS}: {told}")
    if offsets is not None and tuple(offsets.shape) != (count,):
        raise UnsupportedCheckpoint(
            f"{folder}: {OFFSETS} is {tuple(offsets.shape)}, not ({count},)"
        )
    return ids_of(offsets, vocab_size, folder)

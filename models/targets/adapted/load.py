"""Loads checkpoints with transformers, and checks what it loaded."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from models.errors import UnsupportedCheckpoint
from models.targets.adapted.adapter import AdaptedTarget
from models.targets.decoder.config import Json, eos_token_ids
from models.targets.finite import require_finite


def load_adapted(
    path: Path, raw: Json, generation: Json, *, dtype: torch.dtype, device: torch.device
) -> AdaptedTarget:
    """Load a checkpoint with transformers, without running its code or reading pickles.

    Raises:
        UnsupportedCheckpoint: it is not a causal language model, transformers cannot load it, or
            a weight is NaN or infinite.
    """
    require_causal(path, raw)
    model = from_transformers(AutoModelForCausalLM, path, dtype=dtype).to(device)
    return AdaptedTarget(model, eos_token_ids=eos_token_ids(raw, generation))


def from_transformers(of: Any, path: Path, *, dtype: torch.dtype, **options: Any) -> Any:
    """The model on the CPU that the class `of` makes from a checkpoint.

    `options`: of its `from_pretrained`; with a `state_dict` among them no file of the checkpoint is
    read. Raises UnsupportedCheckpoint as `load_adapted` does.
    """
    try:
        loaded: Any = of.from_pretrained(
            None if "state_dict" in options else path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedCheckpoint(f"{path}: transformers cannot load it: {error}") from error
    model, report = loaded
    if missing := sorted(map(str, report["missing_keys"])):
        raise UnsupportedCheckpoint(f"{path} lacks the tensor {missing[0]}")
    for name, weight in model.named_parameters():
        require_finite(weight.detach(), name, path)
    return model.eval()


def require_causal(path: Path, raw: Json) -> None:
    """Raise UnsupportedCheckpoint unless the checkpoint is of a causal language model."""
    known: set[str] = set()
    for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        known.update([names] if isinstance(names, str) else names)
    architectures = raw.get("architectures") or []
    if not known.intersection(architectures):
        found = ", ".join(architectures) or raw.get("model_type")
        raise UnsupportedCheckpoint(f"{path}: {found} is no causal language model we can run")

"""Loads a checkpoint folder as a target: one of ours if the family is supported, else adapted."""

from pathlib import Path

import torch

from models.errors import InvalidOption
from models.exactness import STEADY
from models.targets.decoder.checkpoint import load_decoder, tensor_files
from models.targets.decoder.config import is_known, read_configs
from models.targets.next_scale.model import MODEL_TYPE as NEXT_SCALE
from models.targets.next_scale.scale_target import load_next_scale
from models.targets.target import Target

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_target(
    path: str | Path,
    *,
    dtype: torch.dtype,
    device: str | torch.device = "auto",
    arithmetic: str = STEADY,
    rows: int = 1,
) -> Target:
    """The model of the checkpoint at `path`, on `device` (torch's, or "auto", "cpu" or "cuda").

    `arithmetic`: "steady" uses the compiled kernels where available (see `Target.steady`); "fast"
    uses what is fastest on this device for passes over `rows` tokens.

    Raises:
        InvalidOption: there is no such device.
        UnsupportedCheckpoint: the checkpoint cannot be loaded; the message gives the reason.
    """
    folder, where = Path(path), pick_device(device)
    raw, generation = read_configs(folder)
    if is_known(raw):
        return load_decoder(folder, dtype=dtype, device=where, arithmetic=arithmetic, rows=rows)
    if raw.get("model_type") == NEXT_SCALE:
        return load_next_scale(folder, dtype=dtype, device=where)
    tensor_files(folder)  # a checkpoint without safetensors is refused before the slow import
    from models.targets.adapted.load import load_adapted

    return load_adapted(folder, raw, generation, dtype=dtype, device=where)


def pick_device(device: str | torch.device) -> torch.device:
    """The torch device that "auto", "cpu" or "cuda" means on this machine."""
    if isinstance(device, torch.device):
        return device
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidOption("device", device, "auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidOption("device", device, "no CUDA device is here; cpu or auto")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def device_beside(target: Target | None, device: str) -> torch.device:
    """Where a drafter is: with the target, or on `device` where the target is elsewhere."""
    return pick_device(device) if target is None else target.device

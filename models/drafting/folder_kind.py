"""What kind of drafter a folder holds, from its config.json. Loads no torch."""

from pathlib import Path

from models.errors import UnsupportedCheckpoint
from models.students.about import MODEL_TYPE as STUDENT_TYPE
from models.targets.decoder.config import Json, read_json

MODEL, EAGLE, MEDUSA, HYDRA = "model", "eagle3", "medusa", "hydra"
ABOUT = "drafter.json"  # what a drafter says of its training
SGLANG = "LlamaForCausalLMEagle3"  # an architecture
MEDUSA_PICKLE = "medusa_lm_head.pt"
PICKLES = ("*.pt", "*.bin")


def folder_kind(folder: str | Path) -> str:
    """Its kind, MODEL, EAGLE, MEDUSA, HYDRA or STUDENT_TYPE; MODEL if it cannot be read."""
    path = Path(folder)
    try:
        return kind_of(read_json(path / "config.json"))
    except UnsupportedCheckpoint:
        pass
    try:
        return MEDUSA if (path / MEDUSA_PICKLE).exists() else MODEL
    except OSError:  # its name is too long, or it may not be looked at
        return MODEL


def kind_of(raw: Json) -> str:
    """The kind that a config.json is of."""
    if raw.get("model_type") in (STUDENT_TYPE, HYDRA):
        return str(raw["model_type"])
    if raw.get("speculators_model_type") or SGLANG in (raw.get("architectures") or ()):
        return EAGLE
    return MEDUSA if raw.get("model_type") == "medusa" or "medusa_num_heads" in raw else MODEL


def num_heads(folder: str | Path) -> int | None:
    """The number of a folder's Medusa or Hydra heads, by its config.json; None for other kinds."""
    if folder_kind(folder) not in (MEDUSA, HYDRA):
        return None
    raw = read_json(Path(folder) / "config.json")
    told = raw.get("num_heads", raw.get("medusa_num_heads"))
    return told if isinstance(told, int) else None


def refuse_pickles(folder: str | Path) -> None:
    """Refuse a folder of heads whose tensors are a pickle only.

    Raises:
        UnsupportedCheckpoint: the message has the command that converts them.
    """
    path = Path(folder)
    pickles = sorted(file for name in PICKLES for file in path.glob(name))
    if folder_kind(path) == MODEL or list(path.glob("*.safetensors")) or not pickles:
        return
    raise UnsupportedCheckpoint(
        f"{pickles[0]} may hold code and is never loaded. If you trust its origin, "
        'convert it once: python -c "import torch; from safetensors.torch import save_file; '
        f"save_file(torch.load('{pickles[0]}', 'cpu', weights_only=True), "
        f"'{path / 'model.safetensors'}')\""
    )

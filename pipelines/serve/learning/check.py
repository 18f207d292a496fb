"""Which servers can learn; refused before anything starts. Loads no torch."""

from collections.abc import Sequence
from pathlib import Path

from models.drafting.folder_kind import EAGLE, HYDRA, MEDUSA, MODEL, folder_kind
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.targets.decoder.config import RASTER, is_known, read_configs
from pipelines.serve.config import ServeConfig

TRAINED = (MODEL, EAGLE, MEDUSA, HYDRA)


def check_learning(configs: Sequence[ServeConfig]) -> None:
    """Raises InvalidOption, UnsupportedCheckpoint."""
    learning = [config for config in configs if config.learn is not None]
    if len(learning) > 1:
        told = f"one model of a server, not {len(learning)}: give it in that model's entry"
        raise InvalidOption("learn", learning[1].learn, told)
    for config in learning:
        _check(config)


def _check(config: ServeConfig) -> None:
    draft = Path(config.drafter)
    kind = folder_kind(draft) if draft.is_dir() else None
    if kind not in TRAINED:
        told = (
            "the folder of a draft model, an EAGLE-3 drafter, or Medusa or Hydra heads with --learn"
        )
        raise InvalidOption("drafter", config.drafter, f"{told}, which trains it further")
    models = {"target": Path(config.target)} | ({"draft": draft} if kind == MODEL else {})
    for role, folder in models.items():
        raw, _ = read_configs(folder)
        if not is_known(raw) or raw["model_type"] == RASTER:
            told = f"model_type={raw.get('model_type')!r} is not trained"
            known = "llama, mistral, qwen2 and qwen3 can be learned with"
            raise UnsupportedCheckpoint(f"{role} {str(folder)!r}: {told}; {known}")

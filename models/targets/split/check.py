"""Over how many ranks a target can be split. Loads no torch."""

from pathlib import Path

from models.errors import InvalidOption
from models.targets.decoder.config import DecoderConfig, is_known, parse_config, read_configs
from models.targets.split.plan import check_plan

IMAGES = "1 with a target of images"
OURS = "paceline_"  # families that transformers does not know


def check_ranks(folder: str | Path, ranks: int) -> None:
    """Raise InvalidOption unless the checkpoint in a folder can be split over so many ranks."""
    if ranks == 1:
        return
    raw, generation = read_configs(Path(folder))
    if is_known(raw):
        check_config(parse_config(raw, generation), ranks)
    elif str(raw.get("model_type")).startswith(OURS):
        raise InvalidOption("tensor_parallel", ranks, IMAGES)
    else:
        check_plan(Path(folder), ranks)


def check_config(config: DecoderConfig, ranks: int) -> None:
    """Raise InvalidOption unless such a decoder can be split over so many ranks."""
    if config.grid is not None:
        raise InvalidOption("tensor_parallel", ranks, IMAGES)
    if not _fits(config, ranks):
        counts = [str(n) for n in range(1, config.num_heads + 1) if _fits(config, n)]
        sizes = (
            f"{config.num_heads} query heads, {config.num_kv_heads} key heads, "
            f"inner width {config.inner_width}"
        )
        told = f"one of {', '.join(counts)} with this target ({sizes})"
        raise InvalidOption("tensor_parallel", ranks, told)


def _fits(config: DecoderConfig, ranks: int) -> bool:
    keys = config.num_kv_heads
    shared = keys % ranks == 0 or ranks % keys == 0
    return shared and config.num_heads % ranks == 0 and config.inner_width % ranks == 0

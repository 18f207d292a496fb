"""Loads a rank's part of a target: of our decoder, or of a model that transformers runs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from models.targets.decoder.checkpoint import tensor_files
from models.targets.decoder.config import is_known, read_configs
from models.targets.split.follower import follow
from models.targets.split.group import Group
from models.targets.split.leader import LeadingDecoder
from models.targets.split.rank import RankDecoder, load_rank
from models.targets.target import Target

Follow = Callable[[], None]


def load_leading(
    path: Path, group: Group, *, dtype: torch.dtype, device: torch.device, arithmetic: str
) -> Target:
    """The target, in the first rank's process; the other ranks have to follow.

    Raises:
        InvalidOption: it cannot be split over so many ranks.
        UnsupportedCheckpoint: it cannot be loaded; the message gives the reason.
    """
    if _is_ours(path):
        return load_rank(
            path, group, dtype=dtype, device=device, arithmetic=arithmetic, make=LeadingDecoder
        )
    from models.targets.split.adapted import LeadingAdapted, load_adapted_rank

    return load_adapted_rank(path, group, dtype=dtype, device=device, make=LeadingAdapted)


def load_following(
    path: Path, group: Group, *, dtype: torch.dtype, device: torch.device, arithmetic: str
) -> Follow:
    """What another rank's process has to do from now on, once its part is loaded.

    Raises what `load_leading` raises.
    """
    if _is_ours(path):
        part = load_rank(
            path, group, dtype=dtype, device=device, arithmetic=arithmetic, make=RankDecoder
        )
        return partial(follow, part)
    from models.targets.split.adapted import AdaptedRank, load_adapted_rank

    return load_adapted_rank(path, group, dtype=dtype, device=device, make=AdaptedRank).follow


def _is_ours(path: Path) -> bool:
    raw, _ = read_configs(path)
    if is_known(raw):
        return True
    tensor_files(path)  # a checkpoint without safetensors is refused before the slow import
    return False

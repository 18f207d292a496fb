"""How far the values of each level of heads are trusted when a tree is shaped: measured on texts.

A tree keeps the nodes with the largest products of chances. The chance of a token is estimated as
softmax(s * value); s is fitted by level to what the target chose, and stored with the drafter.
Source: OPT-Tree, Wang et al. 2024, arXiv 2406.17276, whose s is 1.
"""

from pathlib import Path

from models.drafting.folder_kind import ABOUT
from models.drafting.tree import SHARPNESS
from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import read_json

FIELD = "sharpness"  # in ABOUT


class Sharpness:
    """s by level; the last one holds for deeper levels."""

    def __init__(self, *by_level: float) -> None:
        self._by_level = by_level or (SHARPNESS,)

    def __getitem__(self, level: int) -> float:
        return self._by_level[min(level, len(self._by_level) - 1)]


def read_sharpness(folder: Path) -> Sharpness:
    """The values in a drafter's folder, or SHARPNESS without any.

    Raises:
        UnsupportedCheckpoint: they are no positive numbers.
    """
    if not (folder / ABOUT).exists():
        return Sharpness()
    told = read_json(folder / ABOUT).get(FIELD, [])
    if not (isinstance(told, list) and all(isinstance(s, float) and s > 0 for s in told)):
        wanted = "a list of numbers above 0, one for each level"
        raise UnsupportedCheckpoint(f"{folder / ABOUT}: {FIELD}={told!r} is not accepted: {wanted}")
    return Sharpness(*told)

"""The verification rules. A rule is one function from a Round to the commits of its requests."""

from collections.abc import Callable

from models.verify.block import block
from models.verify.match import match
from models.verify.rejection import rejection
from models.verify.round import Commit, Round, RoundNoise

Rule = Callable[[Round], list[Commit]]
RULES: dict[str, Rule] = {"match": match, "rejection": rejection, "block": block}

__all__ = [
    "RULES",
    "Commit",
    "Round",
    "RoundNoise",
    "Rule",
    "block",
    "match",
    "rejection",
]

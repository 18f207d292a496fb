"""The verification rules by name: functions from a Round to the commits of its requests."""

from collections.abc import Callable

from models.verify.block import block
from models.verify.match import match
from models.verify.rejection import rejection
from models.verify.round import Commit, Round

Rule = Callable[[Round], list[Commit]]
RULES: dict[str, Rule] = {"match": match, "rejection": rejection, "block": block}

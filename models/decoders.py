"""The parallel decoders that need no draft model: names, the rule each goes with, their making.

They are drafters whose guesses are the target's own, from the pass before.
"""

from pathlib import Path

from models.checkpoint import read_configs
from models.config import is_known, parse_config
from models.drafters.jacobi import JacobiDrafter
from models.drafters.window import STARTS, Start
from models.errors import InvalidOption
from models.request import require

RULE_OF = {"jacobi": "match", "sjd": "rejection", "mc-sjd": "rejection"}
COUPLINGS = ("maximal", "gumbel")  # of mc-sjd
DEFAULT_COUPLING, DEFAULT_START = "maximal", "left"
WINDOW = 16  # guesses ahead, where the user leaves them open


def check_decoder(drafter: str, verify: str, coupling: str, start: str) -> None:
    """Raise InvalidOption where the options contradict each other."""
    require(coupling in COUPLINGS, "coupling", coupling, f"one of {COUPLINGS}")
    require(start in STARTS, "start", start, f"one of {STARTS}")
    if coupling != DEFAULT_COUPLING:
        require(drafter == "mc-sjd", "coupling", coupling, 'left out: only with drafter="mc-sjd"')
    if start != DEFAULT_START:
        names = " or ".join(RULE_OF)
        require(drafter in RULE_OF, "start", start, f"left out: only with drafter {names}")
    if drafter in RULE_OF:  # "match" is what an option left out holds, too
        rule = RULE_OF[drafter]
        require(verify in ("match", rule), "verify", verify, f"{rule}, as {drafter} needs it")


def build_decoder(drafter: str, target: str, coupling: str, start: str) -> JacobiDrafter:
    """The drafter for a target's folder. Raises InvalidOption: it has no rows to copy from."""
    row_length = grid_width(target)
    if start == "above" and row_length is None:
        raise InvalidOption("start", start, "left or uniform: the target's tokens form no grid")
    how = {"jacobi": "shared", "sjd": "fresh"}.get(drafter, coupling)
    return JacobiDrafter(how, Start(rule=start, row_length=row_length or 1))


def grid_width(folder: str | Path) -> int | None:
    """Places in a row of an image target's grid; None: its tokens form none."""
    raw, generation = read_configs(Path(folder))
    config = parse_config(raw, generation) if is_known(raw) else None
    return None if config is None or config.grid is None else config.rotary.row_length

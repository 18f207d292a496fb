"""The options of the parallel decoders, which need no draft model.

They are drafters: their draft tokens come from the target's previous pass. Does not import torch,
because the command line reads choices and defaults here.
"""

from models.registry import DECODERS, SEQUENTIAL, drafter_entry
from models.requests.request import require

COUPLED = "mc-sjd"  # the decoder that has couplings
COUPLINGS = ("maximal", "gumbel")
STARTS = ("uniform", "left", "above")  # see `Start`
DEFAULT_COUPLING, DEFAULT_START = "maximal", "left"
WINDOW = 16  # draft tokens, unless the user sets a number


def check_decoder(drafter: str, verify: str, coupling: str, start: str) -> None:
    """Raise InvalidOption where the options contradict each other."""
    require(coupling in COUPLINGS, "coupling", coupling, f"one of {COUPLINGS}")
    require(start in STARTS, "start", start, f"one of {STARTS}")
    if coupling != DEFAULT_COUPLING:
        told = f'left out: only with drafter="{COUPLED}"'
        require(drafter == COUPLED, "coupling", coupling, told)
    if start != DEFAULT_START:
        names = " or ".join(name for name in DECODERS if name != SEQUENTIAL)
        require(drafter in DECODERS, "start", start, f"left out: only with drafter {names}")
    rule = drafter_entry(drafter).rule
    if rule is not None:  # "match" is also the default, so it may mean "not set"
        require(verify in ("match", rule), "verify", verify, f"{rule}, as {drafter} needs it")

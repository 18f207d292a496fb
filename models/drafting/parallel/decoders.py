"""The parallel decoders that need no draft model: names, verification rules, options.

They are drafters: their draft tokens come from the target's previous pass. Does not import torch,
because the command line reads choices and defaults here.
"""

from models.requests.request import require

RULE_OF = {"jacobi": "match", "sjd": "rejection", "mc-sjd": "rejection"}
COUPLINGS = ("maximal", "gumbel")  # of mc-sjd
STARTS = ("uniform", "left", "above")  # see `Start`
DEFAULT_COUPLING, DEFAULT_START = "maximal", "left"
WINDOW = 16  # draft tokens, unless the user sets a number


def check_decoder(drafter: str, verify: str, coupling: str, start: str) -> None:
    """Raise InvalidOption where the options contradict each other."""
    require(coupling in COUPLINGS, "coupling", coupling, f"one of {COUPLINGS}")
    require(start in STARTS, "start", start, f"one of {STARTS}")
    if coupling != DEFAULT_COUPLING:
        require(drafter == "mc-sjd", "coupling", coupling, 'left out: only with drafter="mc-sjd"')
    if start != DEFAULT_START:
        names = " or ".join(RULE_OF)
        require(drafter in RULE_OF, "start", start, f"left out: only with drafter {names}")
    if drafter in RULE_OF:  # "match" is also the default, so it may mean "not set"
        rule = RULE_OF[drafter]
        require(verify in ("match", rule), "verify", verify, f"{rule}, as {drafter} needs it")

"""The parallel decoders that need no draft model: names, the rule each goes with, their options.

They are drafters whose guesses are the target's own, from the pass before. Loads no torch: command
lines read their choices and defaults here.
"""

from models.request import require

RULE_OF = {"jacobi": "match", "sjd": "rejection", "mc-sjd": "rejection"}
COUPLINGS = ("maximal", "gumbel")  # of mc-sjd
STARTS = ("uniform", "left", "above")  # see `Start`
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

"""How exactly a result follows the target: derived from what ran, never declared.

identical                   the tokens of plain decoding with this seed
identical up to rounding    the same rule, but sums may be rounded differently in another batch,
                            draft or machine, so a near tie may fall differently
distribution                tokens with the target's law, other ones than plain decoding's
approximate                 another law
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.schedule import Schedule

IDENTICAL, ROUNDED = "identical", "identical up to rounding"
DISTRIBUTION, APPROXIMATE = "distribution", "approximate"
ARITHMETICS = STEADY, FAST = "steady", "fast"  # what a user may ask for
LEVELS = (IDENTICAL, ROUNDED, DISTRIBUTION, APPROXIMATE)  # from the strongest to the weakest

OF_RULE = {"match": IDENTICAL, "rejection": DISTRIBUTION, "block": DISTRIBUTION}


def exactness(rule: str, schedule: "Schedule", *, steady: bool) -> str:
    """The label of what `rule` decides.

    A schedule that chooses positions by sampled values changes the law of what is written there.
    `steady`: see `Target`.
    """
    label = APPROXIMATE if schedule.sample_dependent else OF_RULE[rule]
    return weakest([label, IDENTICAL if steady else ROUNDED])


def weakest(labels: Iterable[str]) -> str:
    """The label that holds for all of several results."""
    return max(labels, key=LEVELS.index, default=IDENTICAL)

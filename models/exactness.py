"""The exactness label of a result, derived from the rule, the schedule and the arithmetic.

identical                   the tokens of plain decoding with this seed
identical up to rounding    the same rule, but sums may be rounded differently in another batch,
                            draft or machine, and rounding may decide between near ties
distribution                another sample from the target's distribution
approximate                 a sample from another distribution
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from models.registry import RULES

if TYPE_CHECKING:
    from models.schedules.schedule import Schedule

IDENTICAL, ROUNDED = "identical", "identical up to rounding"
DISTRIBUTION, APPROXIMATE = "distribution", "approximate"
ARITHMETICS = STEADY, FAST = "steady", "fast"  # what a user may ask for
LEVELS = (IDENTICAL, ROUNDED, DISTRIBUTION, APPROXIMATE)  # from the strongest to the weakest


def exactness(rule: str, schedule: "Schedule", *, steady: bool) -> str:
    """The label of tokens that `rule` decides.

    A schedule that chooses positions by sampled values changes the distribution.
    `steady`: see `Target`.
    """
    label = APPROXIMATE if schedule.sample_dependent else RULES[rule].exactness
    return weakest([label, IDENTICAL if steady else ROUNDED])


def weakest(labels: Iterable[str]) -> str:
    """The strongest label that holds for all results."""
    return max(labels, key=LEVELS.index, default=IDENTICAL)

"""What summaries tell of a token loop: facts about the target, the drafter and the arithmetic."""

from models.drafting.drafter import Drafter
from models.registry import GUMBEL
from models.targets.target import Target


def facts_of(target: Target, drafter: Drafter | None, rule: str) -> dict[str, object]:
    """Values that JSON can hold, by name."""
    return {
        "architecture": target.architecture,
        "adapted": target.adapted,
        "arithmetic": "steady" if target.steady else "torch",
        "parameters": target.num_parameters,
        "vocabulary": target.vocab_size,
        "context_length": target.context_length,
        "schedule": target.schedule.name,
        "drafter": drafter.name if drafter else "none",
        "verify": rule,
        "noise": GUMBEL,  # of requests that name no other map
    }

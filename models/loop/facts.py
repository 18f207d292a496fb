"""What is told of a token loop: facts about the target, the drafter and the arithmetic."""

import platform

import torch

from models.drafting.drafter import Drafter
from models.exactness import exactness
from models.registry import GUMBEL
from models.targets.target import Target


def facts_of(target: Target, drafter: Drafter | None, rule: str) -> dict[str, object]:
    """Values that JSON can hold, by name."""
    return {
        "architecture": target.architecture,
        "adapted": target.adapted,
        **computed(target.device, steady=target.steady),
        "exactness": exactness(rule, target.schedule, steady=target.steady),
        "parameters": target.num_parameters,
        "vocabulary": target.vocab_size,
        "context_length": target.context_length,
        "schedule": target.schedule.name,
        "drafter": drafter.name if drafter else "none",
        "verify": rule,
        "noise": GUMBEL,  # of requests that name no other map
    }


def computed(device: torch.device, *, steady: bool) -> dict[str, str]:
    """The arithmetic, and the device: sums that are not steady are another kind's differently."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return {"arithmetic": "steady" if steady else "torch", "device": f"{device.type} ({name})"}

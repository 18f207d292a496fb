"""All families of targets."""

from collections.abc import Callable

import numpy as np

from models.targets.target import Target
from tests.models.crossings.image_targets import image_target, scales_target, taught_target
from tests.models.crossings.text_targets import adapted_target, text_target, torch_target

# By name, and how often a case is of it.
FAMILIES: dict[str, tuple[Callable[[np.random.Generator], Target], float]] = {
    "text": (text_target, 0.55),
    "torch": (torch_target, 0.15),
    "image": (image_target, 0.1),
    "taught": (taught_target, 0.1),
    "scales": (scales_target, 0.1),
    "adapted": (adapted_target, 0.0),
}

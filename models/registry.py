"""Everything that is chosen by name, one line each. An object is loaded when it is first used.

To add one: write its file and its test, and add its line here. Options, messages about unknown
names and `--help` read the names from here.
"""

from importlib import import_module
from typing import Any

GUMBEL = "gumbel"  # the default map, and the only one that the compiled kernels compute

# The maps from random numbers to tokens: functions from a target to a NoiseMap, see
# models/sampling/maps.py.
MAPS: dict[str, str] = {
    GUMBEL: "models.sampling.maps:gumbel_map",
}


def load(where: str) -> Any:
    """The object that "module:attribute" stands for."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)

"""How much a test does: little in CI, much in `make soak`."""

import os

SOAK = float(os.environ.get("SOAK", "0"))  # seconds of test_soak.py; 0: short forms of all


def sized(short: int, long: int) -> int:
    """`long` in `make soak`."""
    return long if SOAK else short

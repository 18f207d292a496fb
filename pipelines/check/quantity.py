"""Kubernetes' quantities: 500m, 2, 4Gi."""

import re

FACTORS = {
    "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip
FORM = re.compile(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def quantity(value: object) -> float:
    """A quantity as a number; NaN if it is none."""
    found = FORM.fullmatch(str(value))
    return float(found[1]) * FACTORS[found[2] or ""] if found else float("nan")

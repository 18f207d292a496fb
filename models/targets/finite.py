"""Checks that weights and scores are finite: if not, a file is damaged or a dtype overflows."""

import math

import torch

from models.batch import Bools
from models.errors import UnsupportedCheckpoint


def require_finite(tensor: torch.Tensor, name: str, where: object) -> None:
    """Raise UnsupportedCheckpoint if a weight is NaN or infinite."""
    if not tensor.is_floating_point() or tensor.element_size() == 1:
        return
    if math.isfinite(tensor.sum(dtype=torch.float32).item()):  # faster than a test of each value
        return
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise UnsupportedCheckpoint(
            f"{where}: {bad} of the {tensor.numel()} values of tensor {name} are NaN or infinite; "
            "the file is damaged, or training diverged before it was saved"
        )


def broken_rows(logits: torch.Tensor) -> Bools | None:
    """[T] whether each row of logits [T, V] contains NaN or +infinity; None if no row does."""
    total = logits.sum().item()
    if not (math.isnan(total) or total == math.inf):
        return None
    broken = (logits.isnan() | (logits == math.inf)).any(-1)
    found: Bools = broken.cpu().numpy()
    return found if found.any() else None


def told(checkpoint: str, dtype: torch.dtype) -> str:
    """The error message of a request whose scores are not finite."""
    name = str(dtype).removeprefix("torch.")
    advice = (
        " float16 overflows easily: try dtype bfloat16 or float32." if name == "float16" else ""
    )
    return (
        f"target {checkpoint!r} produced NaN or infinite logits in {name}: its weights are "
        f"damaged, or activations overflow on this input.{advice}"
    )

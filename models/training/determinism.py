"""One order of sums in a process, on the CPU or on a GPU."""

import os

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def be_deterministic(device: torch.device) -> None:
    """From now on, the same operations on the same kind of machine give the same bits.

    To be called before the first matrix product on a GPU. Operations that cannot are refused by
    torch.
    """
    if device.type == "cuda":
        os.environ.setdefault(WORKSPACE, ":4096:8")  # cuBLAS reads it once
    torch.use_deterministic_algorithms(True)

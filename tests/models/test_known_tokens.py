"""The shipped targets' tokens and log-probabilities, pinned: every x86 CPU with AVX2 has them."""

import os
import subprocess
import sys

import pytest

from models.kernels import compiled
from tests.models.known_tokens import CASES, DTYPES, digest

KNOWN = {
    ("text", "float32"): "4f8f8118b5267db2",
    ("text", "bfloat16"): "2582c39cd2db1704",
    ("raster", "float32"): "f564fe69228a96a7",
    ("raster", "bfloat16"): "e8aa780c2ea87597",
    ("next-scale", "float32"): "e7117db0d739b806",
    ("next-scale", "bfloat16"): "477072cf729b8f4f",
}
# torch and its libraries as on a CPU that lacks what this one has.
ANOTHER_CPU = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}

pytestmark = pytest.mark.skipif(not compiled(), reason="no compiled kernels here")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_this_machine_has_the_known_tokens(case, dtype) -> None:
    assert digest(case, dtype) == KNOWN[case, dtype]


@pytest.mark.slow
def test_another_machine_has_them_too() -> None:
    """As far as another machine can be had on this one: torch's own kernels change, ours do not."""
    out = subprocess.run(
        [sys.executable, "-m", "tests.models.known_tokens"],
        env={**os.environ, **ANOTHER_CPU, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [tuple(line.split()) for line in out.splitlines()]
    assert {(case, dtype): found for case, dtype, found in lines} == KNOWN

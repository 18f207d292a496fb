"""Distillations of drafters by the command, on the cluster of the tests, and what they come to."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from models.training.log import EXAMS, METRICS, read_lines

SIZES = {
    "train-batch": 8,
    "exam-prompts": 3,
    "exam-tokens": 8,
    "length": 48,
    "depth": 3,
    "rate": 1e-3,
    "threads": 1,
}


def start(target: str, output: Path, options: Mapping[str, object]) -> "subprocess.Popen[bytes]":
    """`paceline distill drafter` with these options besides SIZES; the cluster outlives it."""
    given = {"target": target, "output": output, **SIZES, **options}
    given["address"] = ray.get_runtime_context().gcs_address
    words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "pipelines.cli", "distill", "drafter", *words]
    return subprocess.Popen([*command, "--no-progress"], stdout=subprocess.DEVNULL)


def outcome(run: Path) -> dict[str, Any]:
    """Losses and exams of all steps, the drafter's weights, the texts of each generation."""
    weights = {file.name: file.read_bytes() for file in (run / "export").glob("*.safetensors")}
    assert weights
    texts = [*(run / "texts").glob("*"), *(run / "renewed").glob("*/*.parquet")]
    return {
        "losses": [(line["step"], line["loss"]) for line in read_lines(run / "train" / METRICS)],
        "exams": (run / "train" / EXAMS).read_bytes(),
        "weights": weights,
        "about": json.loads((run / "export" / "drafter.json").read_text()),
        "texts": {str(file.relative_to(run)): file.read_bytes() for file in texts},
    }


def assert_nothing_is_held(*, patience_s: float = 30.0) -> None:
    """Killed processes have given back their places in the cluster."""
    deadline = time.monotonic() + patience_s
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)

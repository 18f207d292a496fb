"""The overlays of k8s/ as tests use them; skips where a tool or the schemas are missing."""

import shutil
from functools import cache
from pathlib import Path

import pytest

from pipelines.check.render import render

ROOT = Path(__file__).parents[3]
SCHEMAS = ROOT.parent / "shared" / "crds"
OVERLAYS = ("cpu-demo", "gpu", "gpu-autoscale")


@cache
def overlay(name: str) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: NO OVERLAY WAS RENDERED OR CHECKED")
    return render(ROOT / "k8s" / "overlays" / name)


def schemas() -> str:
    if not list(SCHEMAS.glob("*.yaml")):
        pytest.skip(f"no custom resource definitions in {SCHEMAS}: NO SCHEMA WAS CHECKED")
    return str(SCHEMAS)

"""The file in which a round's process says what came out. Loads no torch."""

import json
from dataclasses import asdict
from pathlib import Path

from cluster.storage import storage
from pipelines.serve.learning.decision import Decision

DRAFTER, VERDICT = "drafter", "verdict.json"
REFUSED = 2  # the exit code of a process that would fail again


def write_verdict(folder: Path, decision: Decision) -> None:
    """In one instant."""
    storage.publish(str(folder / VERDICT), json.dumps(asdict(decision)).encode() + b"\n")


def read_verdict(folder: Path) -> Decision | None:
    """None: there is none yet."""
    file = folder / VERDICT
    return Decision(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

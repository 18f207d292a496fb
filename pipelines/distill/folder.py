"""A run's folder: what the run is, and which of its stages are committed.

RUN/run.json            options, what decides the result, versions
RUN/records/            the target's images to learn from (rows of `paceline generate`)
RUN/held-out/           more of them, for the evaluation
RUN/texts/              a drafter's: the texts to learn from, and held-out ones
RUN/train/              states, metrics.jsonl, exams.jsonl, events/ of TensorBoard, the model
RUN/samples/            images of each way of sampling
RUN/evaluation/         their figures, curves and sheets
RUN/export/             the trained model, to be used by its path
RUN/report.html         what came out, on a page
RUN/_stages/NAME.json   commits a stage
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster import storage
from models.errors import InvalidOption
from pipelines.errors import OutputRefused
from pipelines.output.manifest import differences

ABOUT, REPORT, STAGES = "run.json", "report.html", "_stages"
PARTS = (
    "classes",
    "records",
    "held-out",
    "texts",
    "train",
    "samples",
    "evaluation",
    "export",
    STAGES,
)


class RunFolder:
    """Opened for one run; stages that are committed are skipped."""

    def __init__(self, path: Path, *, tell: Callable[[str], None]) -> None:
        self.path, self._tell = path, tell

    def stage(self, name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Do the work unless it is committed, commit it, and return what it reported."""
        entry = self._entry(name)
        if entry.exists():
            self._tell(f"{name}: done before")
        else:
            self._tell(f"{name} ...")
            began = time.monotonic()
            told = {"told": dict(work()), "seconds": time.monotonic() - began}
            storage.create(str(entry), json.dumps(told, indent=1).encode() + b"\n")
        found: dict[str, Any] = json.loads(entry.read_text(encoding="utf-8"))["told"]
        return found

    def seconds(self) -> dict[str, float]:
        """How long each committed stage took, in order."""
        entries = [json.loads(p.read_text("utf-8")) | {"name": p.stem} for p in self._entries()]
        return {entry["name"]: entry["seconds"] for entry in entries}

    def _entries(self) -> list[Path]:
        return sorted((self.path / STAGES).glob("*.json"), key=lambda path: path.stat().st_mtime)

    def is_done(self, name: str) -> bool:
        """Whether the stage is committed."""
        return self._entry(name).exists()

    def _entry(self, name: str) -> Path:
        return self.path / STAGES / f"{name}.json"

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write what the run is.

        Raises:
            OutputRefused: the folder holds a run that something else decides.
        """
        file = self.path / ABOUT
        if file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
            changes = differences(before["decides"], about["decides"])
            if changes:
                raise OutputRefused(
                    f"output {str(self.path)!r} holds another run: {'; '.join(changes[:3])}. Give "
                    "another output, or --no-resume to delete that run and start over"
                )
        storage.publish(str(file), json.dumps(about, indent=1).encode() + b"\n")

    def clear(self) -> None:
        """Delete the run's stages and their files."""
        for name in PARTS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (ABOUT, REPORT):
            (self.path / name).unlink(missing_ok=True)


def open_path(output: str) -> Path:
    """The folder of a run.

    Raises:
        InvalidOption: it is not on a file system.
        OutputRefused: it holds something else.
    """
    url = storage.normalize(output)
    if not storage.is_local(url):
        raise InvalidOption("output", output, "a folder of a file system: states are renamed there")
    path = Path(url)
    there = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    strange = [name for name in there if name not in (*PARTS, ABOUT, REPORT, "_manifest")]
    if strange and ABOUT not in there:
        told = f"contains {strange[0]!r}, which paceline did not write; choose an empty folder"
        raise OutputRefused(f"output {output!r} already {told}")
    return path

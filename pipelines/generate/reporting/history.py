"""What all runs of a job counted: figures survive in the output folder, `_manifest/figures.json`.

A run adds its own when it ends. What a killed run counted is lost, but not its committed rows and
their seconds, which stand in the manifest's entries.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cluster.storage import storage
from models.loop.figures import Figures
from pipelines.output.manifest import FIGURES


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Sums over a job's runs; `engine` is what the last one ran on."""

    runs: int = 0
    startup_seconds: float = 0.0
    figures: Figures = field(default_factory=Figures)
    engine: Mapping[str, Any] = field(default_factory=dict)

    def and_then(
        self, figures: Figures, *, startup_seconds: float, engine: Mapping[str, Any]
    ) -> "History":
        """With one more run."""
        return History(
            runs=self.runs + 1,
            startup_seconds=self.startup_seconds + startup_seconds,
            figures=self.figures + figures,
            engine=engine,
        )


def read_history(url: str) -> History:
    """That of an output folder; an empty one where no run has ended yet."""
    place = storage.join(url, FIGURES)
    if storage.file_size(place) is None:
        return History()
    values: dict[str, Any] = json.loads(storage.read_bytes(place))
    return History(**values | {"figures": _figures(values["figures"])})


def write_history(url: str, history: History) -> None:
    """Keep it for the runs to come."""
    data = json.dumps(asdict(history), indent=1).encode()
    storage.publish(storage.join(url, FIGURES), data)


def _figures(values: Mapping[str, Any]) -> Figures:
    known = {found.name for found in fields(Figures)}
    shaped: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in known
    }
    return Figures(**shaped)

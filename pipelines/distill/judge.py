"""The evaluation of a student: every way of sampling beside the teacher's own images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import storage
from models.metrics.compare import Outcome
from pipelines.bench.table import markdown
from pipelines.evaluate.classify import FOLDER as CLASSIFIER
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.report import is_beyond, number
from pipelines.evaluate.run import evaluate

METRICS = (
    "fd-clf",
    "kd-clf",
    "precision",
    "recall",
    "token-entropy",
    "token-tv",
    "accuracy",
    "nll",
)
TEACHER = "teacher"
RESAMPLES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Figures by way and metric; `teacher` holds the floors. `beyond`: those not of its law."""

    values: Mapping[str, Mapping[str, float]]
    beyond: Mapping[str, Sequence[str]]
    ms_per_image: Mapping[str, Mapping[str, float]]
    passes: Mapping[str, int]

    @property
    def closed(self) -> dict[str, float]:
        """The share of the fd-clf gap between independent sampling and teacher that is closed."""
        first, best = self.values["independent"]["fd-clf"], self.values[TEACHER]["fd-clf"]
        return {
            name: (first - values["fd-clf"]) / (first - best)
            for name, values in self.values.items()
            if name not in (TEACHER, "independent") and first > best
        }

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "values": {way: dict(v) for way, v in self.values.items()},
            "beyond_floor": {way: list(v) for way, v in self.beyond.items()},
            "fd_clf_gap_closed": self.closed,
            "ms_per_image": {way: dict(v) for way, v in self.ms_per_image.items()},
            "passes": dict(self.passes),
        }

    def lines(self) -> list[str]:
        """A table, a way per line; * marks what is beyond the floor."""
        metrics = list(next(iter(self.values.values())))
        batches = list(next(iter(self.ms_per_image.values())))
        heads = ["images by", "passes", *metrics, *(f"ms/image, batch {b}" for b in batches)]
        rows = [self._cells(way, metrics, batches) for way in self.values]
        closed = ", ".join(f"{name} {share:.0%}" for name, share in self.closed.items())
        told = f"closed of the fd-clf gap between independent and teacher: {closed}"
        return [markdown(heads, rows), "", "* beyond the floor, the teacher's own spread", told]

    def _cells(self, way: str, metrics: Sequence[str], batches: Sequence[str]) -> list[str]:
        values, beyond = self.values[way], self.beyond.get(way, ())
        figures = [number(values[name]) + "*" * (name in beyond) for name in metrics]
        times = [number(self.ms_per_image[way][batch]) for batch in batches]
        return [way, str(self.passes[way]), *figures, *times]


def judge(
    samples: Mapping[str, Path],
    held_out: Path,
    *,
    target: str,
    guidance: float,
    classifier: str,
    output: Path,
    ms_per_image: Mapping[str, Mapping[str, float]],
    passes: Mapping[str, int],
) -> Judgement:
    """Evaluate each way's samples against the teacher's images in `held_out`; writes its reports.

    Raises what `pipelines.evaluate.run.evaluate` raises.
    """
    values: dict[str, dict[str, float]] = {TEACHER: {}}
    beyond: dict[str, list[str]] = {}
    for way, folder in samples.items():
        place = output / folder.name
        outcomes = _outcomes(
            EvaluateConfig(
                samples=str(folder),
                reference=str(held_out),
                metrics=METRICS,
                teacher=target,
                guidance=None if guidance == 1.0 else guidance,
                classifier=classifier,
                bootstrap=RESAMPLES,
                output=str(place),
                progress=False,
            )
        )
        classifier = str(place / CLASSIFIER)  # the same one for all
        values[way] = {name: found.value for name, found in outcomes.items()}
        values[TEACHER] = {name: found.floor for name, found in outcomes.items()}
        beyond[way] = [name for name, found in outcomes.items() if is_beyond(found)]
    found = Judgement(values=values, beyond=beyond, ms_per_image=ms_per_image, passes=passes)
    data = json.dumps(found.as_dict(), indent=1).encode() + b"\n"
    storage.publish(str(output / "evaluation.json"), data)
    return found


def _outcomes(config: EvaluateConfig) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in evaluate(config).outcomes}

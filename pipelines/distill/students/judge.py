"""The evaluation of a student: every way of sampling beside the teacher's own images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.storage import storage
from models.metrics.catalogue import METRICS
from models.metrics.compare import Outcome
from pipelines.bench.table import markdown
from pipelines.distill.findings import BEYOND, Bars, Findings, Picture, Table
from pipelines.distill.students.samples import INDEPENDENT
from pipelines.evaluate.classify import FOLDER as CLASSIFIER
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.report import is_beyond, number
from pipelines.evaluate.run import evaluate

SHOWN = (
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
EVALUATION, SHEET = "evaluation", "samples.png"
SHEET_TOLD = "Images of each way; all but the teacher's come from the same noise."
NOTE = "beyond the floor, the teacher's own spread"
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
        first, best = self.values[INDEPENDENT]["fd-clf"], self.values[TEACHER]["fd-clf"]
        return {
            name: (first - values["fd-clf"]) / (first - best)
            for name, values in self.values.items()
            if name not in (TEACHER, INDEPENDENT) and first > best
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
        batches = list(next(iter(self.ms_per_image.values())))
        shown = self.table(batches)
        return [markdown(shown.heads, shown.rows), "", f"* {NOTE}", self.told_closed()]

    def table(self, batches: Sequence[str] = ()) -> Table:
        """A way per row, with times at these batch sizes."""
        metrics = list(next(iter(self.values.values())))
        heads = ["images by", "passes", *metrics, *(f"ms/image, batch {b}" for b in batches)]
        rows = [self._cells(way, metrics, batches) for way in self.values]
        floor = list(self.values).index(TEACHER) if TEACHER in self.values else None
        note = f"{BEYOND} {NOTE}; the row of the teacher is the floor"
        return Table(title="Images of each way", heads=heads, rows=rows, note=note, floor=floor)

    def told_closed(self) -> str:
        """How much of the gap each number of passes closes."""
        if not self.closed:
            return "no fd-clf gap between independent and teacher: give more images, --eval-rows"
        closed = ", ".join(f"{name} {share:.0%}" for name, share in self.closed.items())
        return f"closed of the fd-clf gap between independent and teacher: {closed}"

    def findings(self) -> Findings:
        """What the report shows."""
        students = [way for way in self.values if way not in (TEACHER, INDEPENDENT)]
        batches = list(next(iter(self.ms_per_image.values())))
        words = {name: METRICS[name].told for name in next(iter(self.values.values()))}
        return Findings(
            headline=[self._headline(way, batches[0]) for way in students],
            tables=[self.table()],
            bars=[self._bars(batch) for batch in batches],
            pictures=[Picture(title=SHEET_TOLD, file=f"{EVALUATION}/{SHEET}")],
            words=words,
        )

    def _headline(self, way: str, batch: str) -> str:
        taken, before = (self.ms_per_image[name][batch] for name in (way, TEACHER))
        count = self.passes[way]
        passes = "One pass makes" if count == 1 else f"{count} passes make"
        kept = self.beyond.get(way, ())
        told = f"beyond the floor: {', '.join(kept)}" if kept else "no figure is beyond its floor"
        speed = f"{before / taken:.1f} times the target's speed"
        return (
            f"{passes} an image in {taken:.3g} ms instead of {before:.3g} ms at batch {batch}, "
            f"{speed}; {self._gap(way)}{told}."
        )

    def _gap(self, way: str) -> str:
        closed = self.closed.get(way)
        if closed is None:
            return ""
        if closed < 0:
            return "its fd-clf is worse than that of independent tokens; "
        return f"closes {closed:.0%} of the fd-clf gap between independent tokens and the target; "

    def _bars(self, batch: str) -> Bars:
        lengths = {way: times[batch] for way, times in self.ms_per_image.items()}
        title = f"Milliseconds per image, {batch} at once"
        return Bars(title=title, unit="ms", lengths=lengths)

    def _cells(self, way: str, metrics: Sequence[str], batches: Sequence[str]) -> list[str]:
        values, beyond = self.values[way], self.beyond.get(way, ())
        figures = [number(values[name]) + BEYOND * (name in beyond) for name in metrics]
        times = [number(self.ms_per_image[way][batch]) for batch in batches]
        return [way, str(self.passes[way]), *figures, *times]


def judge(
    samples: Mapping[str, Path],
    held_out: Path,
    *,
    target: str,
    guidance: float,
    device: str,
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
                metrics=SHOWN,
                teacher=target,
                guidance=None if guidance == 1.0 else guidance,
                device=device,
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

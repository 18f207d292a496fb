"""The evaluation of a drafter: the real loop on held-out prompts, beside other drafters."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.storage import storage
from models.drafting.distil.exam import Trial
from models.drafting.distil.foreseen import AGREES
from models.loop.figures import Figures
from models.targets.target import Target
from models.training.kind import SCORE
from pipelines.bench.table import markdown
from pipelines.distill.findings import Bars, Findings, Table

TEMPERATURES = (0.0, 1.0)
HEADS = (
    "drafter",
    "temperature",
    "accepted length",
    "first accepted",
    "tokens/s",
    "over plain",
    "round ms",
    "draft ms",
    "score ms",
)
PLAIN, START, MADE = "plain", "start", "this drafter"
NOTE = "chains of one length; times are of this machine, one request at once"
WORDS = {
    "accepted length": "tokens that a request gains per round, the bonus token included",
    "first accepted": "share of the drafts whose first token was accepted",
    "agreement": "chance that match accepts the first drafted token at temperature 1",
    "acceptance": "the same for rejection: an upper bound of the agreement",
    "same_likeliest": "chance that match accepts it at temperature 0",
    "accepted_length_t0": "tokens per round in the real loop at temperature 0; t1: at 1",
    "length_by_laws_t0": "expected tokens of a round at temperature 0, by the distributions alone, "
    "from every place of the exam's texts; its mean with t1 chooses the state to export",
    "length_by_laws_t1": "expected tokens of a round at temperature 1, by the distributions alone",
    "foreseen_length_t0": "tokens per round that the distributions foresee of the loop's own run",
    AGREES: "1: the loop's rounds are those foreseen, within the error of sampling; 0: drafting "
    "differs from training, and the state counts with the loop's length",
}
CURVES = {
    "the first drafted token": ("agreement", "acceptance", "same_likeliest"),
    "tokens per round at temperature 0": (
        "length_by_laws_t0",
        "accepted_length_t0",
        "foreseen_length_t0",
    ),
    "tokens per round at temperature 1": (
        "length_by_laws_t1",
        "accepted_length_t1",
        "foreseen_length_t1",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A drafter at a temperature; times are of this machine."""

    drafter: str
    temperature: float
    accepted_length: float
    first_accepted: float | None  # share of rounds whose first drafted token was accepted
    tokens_per_second: float
    round_ms: Mapping[str, float]

    def cells(self, plain: "Line") -> list[str]:
        """For the table."""
        return [
            self.drafter,
            f"{self.temperature:g}",
            f"{self.accepted_length:.2f}",
            "–" if self.first_accepted is None else f"{self.first_accepted:.2f}",
            f"{self.tokens_per_second:.0f}",
            f"{self.tokens_per_second / plain.tokens_per_second:.2f}×",
            *(f"{self.round_ms[name]:.2f}" for name in ("round", "draft", "score")),
        ]


def measure(trial: Trial, drafters: Mapping[str, str], target: Target) -> list[Line]:
    """Every drafter, plain decoding first, at each temperature."""
    return [
        line_of(name, temperature, trial.run(drafter, temperature, target))
        for temperature in TEMPERATURES
        for name, drafter in ({PLAIN: "none"} | dict(drafters)).items()
    ]


def line_of(name: str, temperature: float, figures: Figures) -> Line:
    """The figures of one run."""
    round_ms, drafted = figures.round_ms(), figures.drafted_by_position
    seconds = round_ms["round"] * figures.rounds / 1e3
    return Line(
        drafter=name,
        temperature=temperature,
        accepted_length=figures.accepted_length,
        first_accepted=figures.accepted_by_position[0] / drafted[0] if drafted else None,
        tokens_per_second=figures.tokens / seconds if seconds else 0.0,
        round_ms=round_ms,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All measurements, and the exams of the training in the order of their steps."""

    lines: Sequence[Line]
    exams: Sequence[Mapping[str, float]]

    def loop_table(self) -> Table:
        """A drafter at a temperature per row."""
        plain = {line.temperature: line for line in self.lines if line.drafter == PLAIN}
        rows = [line.cells(plain[line.temperature]) for line in self.lines]
        return Table(title="The real loop, on held-out prompts", heads=HEADS, rows=rows, note=NOTE)

    def exam_table(self) -> Table:
        """The exams at the start, and the best one."""
        first, best = self.exams[0], max(self.exams, key=lambda exam: exam[SCORE])
        names = [name for name in first if name not in ("step", SCORE) and name in best]
        rows = [[name, f"{first[name]:.3f}", f"{best[name]:.3f}"] for name in names]
        heads = ("exam", "step 0", f"best, step {best['step']:g}")
        return Table(title="Exams during training", heads=heads, rows=rows)

    def told(self) -> str:
        """Both tables, as Markdown, and what is wrong."""
        tables = [self.exam_table(), self.loop_table()]
        return "\n\n".join(
            [*(markdown(table.heads, table.rows) for table in tables), *self.warnings()]
        )

    def warnings(self) -> list[str]:
        """Whether drafting differed from training in an exam."""
        steps = [f"{exam['step']:g}" for exam in self.exams if exam.get(AGREES, 1.0) == 0]
        if not steps:
            return []
        told = "the loop took other numbers of rounds than the distributions foresee"
        return [
            f"Drafting differs from training: in the exams at steps {', '.join(steps)}, {told}."
        ]

    def findings(self) -> Findings:
        """What the report shows."""
        made = [line for line in self.lines if line.drafter == MADE]
        return Findings(
            headline=[*(self._headline(line) for line in made), *self.warnings()],
            tables=[self.loop_table(), self.exam_table()],
            bars=[self._bars(temperature) for temperature in TEMPERATURES],
            words=WORDS,
            curves=CURVES,
        )

    def _headline(self, made: Line) -> str:
        others = {line.drafter: line for line in self.lines if line.temperature == made.temperature}
        speed = made.tokens_per_second / others[PLAIN].tokens_per_second
        start = others.get(START)
        before = "" if start is None else f", {start.accepted_length:.2f} with the start"
        return (
            f"At temperature {made.temperature:g}, a round gives {made.accepted_length:.2f} tokens"
            f"{before}; {speed:.2f} times the speed of plain decoding."
        )

    def _bars(self, temperature: float) -> Bars:
        lengths = {
            line.drafter: 1e3 / line.tokens_per_second
            for line in self.lines
            if line.temperature == temperature and line.tokens_per_second
        }
        title = f"Milliseconds per token at temperature {temperature:g}"
        return Bars(title=title, unit="ms", lengths=lengths)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "lines": [{**asdict(line), "round_ms": dict(line.round_ms)} for line in self.lines],
            "exams": [dict(exam) for exam in self.exams],
        }

    def write(self, file: Path) -> None:
        """As JSON."""
        storage.publish(str(file), json.dumps(self.as_dict(), indent=1).encode() + b"\n")

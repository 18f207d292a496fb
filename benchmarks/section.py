"""A section of the benchmark's page: tables, notes, and goals with the measured values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.bench.measurement import Measurement
from pipelines.bench.table import HEADS, cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A wanted and a measured ratio. `why` names the parts that explain the measured value.

    `asked`: whether the goal's condition holds in this run; if not, it is neither met nor missed.
    """

    text: str
    goal: float
    measured: float
    at_most: bool = False
    percent: bool = False
    why: str = ""
    asked: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the measured value reaches the goal; None if the goal does not apply."""
        if not self.asked:
            return None
        return self.measured <= self.goal if self.at_most else self.measured >= self.goal

    def as_dict(self) -> dict[str, Any]:
        """The goal as a JSON object."""
        return asdict(self) | {"met": self.met}

    def cells(self) -> list[str]:
        """A row of the goals' table."""
        sign = "≤" if self.at_most else "≥"
        goal, measured = self._shown(self.goal), self._shown(self.measured)
        met = {True: "yes", False: "no", None: "–"}[self.met]
        return [self.text, f"{sign} {goal}", measured, met, self.why]

    def _shown(self, value: float) -> str:
        return f"{value:.1%}" if self.percent else f"{value:.2f}×"


GOAL_HEADS = ("goal", "wanted", "measured", "met", "made of")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Column heads, and rows of cells as text."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(slots=True, kw_only=True)
class Section:
    """One section; the functions that measure fill it."""

    name: str
    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)

    def add(self, caption: str, lines: Sequence[Measurement]) -> None:
        """A table of measurements."""
        self.measurements += lines
        self.put(caption, HEADS, [cells(line) for line in lines])

    def put(self, caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Any other table."""
        self.tables.append(
            Table(caption=caption, heads=tuple(heads), rows=tuple(tuple(row) for row in rows))
        )

    def as_dict(self) -> dict[str, Any]:
        """The section as a JSON object."""
        return {
            "name": self.name,
            "title": self.title,
            "notes": self.notes,
            "goals": [goal.as_dict() for goal in self.goals],
            "goal_rows": [goal.cells() for goal in self.goals],
            "tables": [asdict(table) for table in self.tables],
            "measurements": [line.as_dict() for line in self.measurements],
        }


def made_of(line: Measurement, plain: Measurement) -> str:
    """What a round yields and costs, in units of a plain round, and its parts."""
    if not line.round_ms or not plain.round_ms or not line.target_passes or not plain.target_passes:
        return ""
    step = plain.round_ms["round"]
    gain = (line.tokens / line.target_passes) / (plain.tokens / plain.target_passes)
    parts = [
        f"{part} {line.round_ms[part] / step:.2f}"
        for part in ("draft", "transfer", "score", "verify", "other")
        if line.round_ms[part] >= 0.005 * step
    ]
    cost = line.round_ms["round"] / step
    told = f"{gain:.2f} plain rounds' tokens at the cost of {cost:.2f}: {', '.join(parts)}"
    shares = [(one.prefill_s or 0.0) / one.seconds if one.seconds else 0.0 for one in (line, plain)]
    if max(shares) < 0.05:
        return told
    return f"{told}; reading prompts is {shares[0]:.0%} of its time, {shares[1]:.0%} of plain's"


def step_of(line: Measurement) -> str:
    """The parts of a plain round in milliseconds."""
    if not line.round_ms:
        return ""
    parts = [f"{name} {ms:.2f}" for name, ms in line.round_ms.items() if ms >= 0.005]
    return f"our step in ms: {', '.join(parts)}"

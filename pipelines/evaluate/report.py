"""What an evaluation found: as a table, as sentences, as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from models.metrics.catalogue import METRICS
from models.metrics.compare import Outcome
from pipelines.bench.table import markdown

LEVEL = 0.05
HEADS = ("figure", "samples", "95 %", "floor", "95 %", "difference", "p", "verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An evaluation's outcome. `rows`: of each set, used and there; `skipped`: figure to reason."""

    outcomes: tuple[Outcome, ...]
    rows: Mapping[str, Mapping[str, int]]
    skipped: Mapping[str, str]
    classifier: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the classifier
    versions: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def beyond(self) -> list[str]:
        """The figures that are not the floor's."""
        return [outcome.name for outcome in self.outcomes if is_beyond(outcome)]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        figures = {}
        for outcome in self.outcomes:
            values = asdict(outcome)
            name = values.pop("name")
            beyond, told = is_beyond(outcome), METRICS[name].told
            figures[name] = {**values, "beyond_floor": beyond, "told": told}
        whole = {name: getattr(self, name) for name in ("rows", "skipped", "versions", "config")}
        return {"figures": figures, "classifier": dict(self.facts), **whole}

    def lines(self) -> list[str]:
        """The table and what a person wants to know beside it."""
        counts = ", ".join(
            f"{used['used']} of {used['there']} {name}{_dropped(used)}"
            for name, used in self.rows.items()
        )
        return [
            table(self.outcomes),
            "",
            f"rows        {counts}",
            *([f"classifier  {self.classifier}"] if self.classifier else []),
            *(f"left out    {told}" for told in _skipped(self.skipped)),
            f"verdict     {self._verdict()}",
        ]

    def _verdict(self) -> str:
        beyond = self.beyond
        if beyond:
            return f"not the reference's law: beyond the floor in {', '.join(beyond)}"
        return "within the floor: no figure tells the samples from the teacher's own"


def is_beyond(outcome: Outcome) -> bool:
    """Whether the figure tells samples from floor, at 5 % for all figures together."""
    return outcome.p_value <= LEVEL


def table(outcomes: tuple[Outcome, ...]) -> str:
    """One row per figure."""
    return markdown(HEADS, [_cells(outcome) for outcome in outcomes])


def number(value: float) -> str:
    """Four digits that mean something."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"


def _cells(outcome: Outcome) -> list[str]:
    return [
        outcome.name,
        number(outcome.value),
        _range(outcome.interval),
        number(outcome.floor),
        _range(outcome.floor_interval),
        f"{outcome.score:.1f} sd",
        f"{outcome.p_value:.3f}",
        "beyond" if is_beyond(outcome) else "within",
    ]


def _range(interval: tuple[float, float]) -> str:
    return f"{number(interval[0])} to {number(interval[1])}"


def _dropped(used: Mapping[str, int]) -> str:
    return f" ({used['dropped']} more were errors)" if used.get("dropped") else ""


def _skipped(skipped: Mapping[str, str]) -> list[str]:
    """One line per reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        reasons.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]

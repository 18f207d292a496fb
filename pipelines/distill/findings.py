"""What an evaluation tells the report: sentences, tables and pictures, of any kind of training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

BEYOND = "*"  # ends a cell that is beyond its floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text; those of the row `floor` are what the others are compared with."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    floor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """A length for each name, the smaller the better."""

    title: str
    unit: str
    lengths: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG in the run's folder."""

    title: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the page shows.

    `headline`: the sentences that a person reads first. `words`: what names of figures mean.
    `curves`: exam figures that share a chart, by its title; without any, each figure has its own.
    """

    headline: Sequence[str]
    tables: Sequence[Table] = ()
    bars: Sequence[Bars] = ()
    pictures: Sequence[Picture] = ()
    words: Mapping[str, str] | None = None
    curves: Mapping[str, Sequence[str]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> "Findings":
        """From JSON."""
        return cls(
            headline=told["headline"],
            tables=[Table(**each) for each in told["tables"]],
            bars=[Bars(**each) for each in told["bars"]],
            pictures=[Picture(**each) for each in told["pictures"]],
            words=told["words"],
            curves=told.get("curves"),  # not in runs of before
        )

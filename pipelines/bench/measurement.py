"""One line of a table of speeds: what a recipe did at one batch size, against plain decoding."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.loop.figures import Figures
from pipelines.bench.interleave import Outputs, Run, Series, verdicts
from pipelines.bench.recipe import Recipe

PARTS = ("draft", "transfer", "score", "verify", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """`speed_up` is over plain at the same batch size; `same` of `compared` requests equal plain's.

    Tokens per second count the reading of prompts; rounds do not. What a contestant cannot tell
    (transformers knows no rounds) is None.
    """

    name: str
    batch_size: int
    tokens_per_second: float
    speed_up: float
    slowest: float = 0.0  # tokens/s over all runs
    fastest: float = 0.0
    accepted_length: float | None = None
    round_ms: Mapping[str, float] | None = None
    target_passes: int | None = None
    draft_passes: int | None = None
    drafted: int | None = None
    acceptance_by_position: tuple[float, ...] = ()
    prefill_s: float | None = None
    exactness: str = ""
    same: int | None = None
    compared: int = 0
    recipe: Recipe | None = None
    tokens: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def measurement(
    name: str,
    series: Series,
    plain: Series,
    *,
    batch_size: int,
    reference: Outputs | None,
    recipe: Recipe | None = None,
    whole: bool = False,
) -> Measurement:
    """A series as a line; its rounds and passes are those of the run with the median speed.

    `whole`: or of all runs together, where each had other requests.
    `reference`: the tokens that all of them should have; None: they may differ.
    """
    shown = series.runs if whole else [series.middle]
    figures = _summed(shown)
    speeds = [run.tokens_per_second for run in series.runs]
    same = [] if reference is None else _same(series.runs, reference)
    return Measurement(
        name=name,
        batch_size=batch_size,
        tokens_per_second=series.tokens_per_second,
        speed_up=series.over(plain),
        slowest=min(speeds),
        fastest=max(speeds),
        exactness=series.middle.exactness,
        same=None if reference is None else sum(same),
        compared=len(same),
        recipe=recipe,
        tokens=sum(run.tokens for run in shown),
        seconds=sum(run.seconds for run in shown),
        **({} if figures is None else counted(figures)),
    )


def counted(figures: Figures) -> dict[str, Any]:
    """A measurement's fields that a loop's figures fill."""
    return {
        "accepted_length": figures.accepted_length,
        "round_ms": figures.round_ms(),
        "target_passes": figures.target_passes,
        "draft_passes": figures.draft_passes,
        "drafted": figures.drafted,
        "acceptance_by_position": figures.acceptance_by_position,
        "prefill_s": figures.prefill_s,
    }


def _summed(runs: list[Run]) -> Figures | None:
    figures = [run.figures for run in runs if run.figures is not None]
    return sum(figures[1:], figures[0]) if figures else None


def _same(runs: list[Run], reference: Outputs) -> list[bool]:
    return [same for run in runs for same in verdicts(run.outputs, reference)]

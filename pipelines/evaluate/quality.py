"""Several ways of sampling one law side by side: the first is the floor of the others.

Each is held against the same reference, samples of that law from other seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.metrics.compare import Outcome
from pipelines.bench.table import UNKNOWN
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.report import is_beyond, number
from pipelines.evaluate.run import evaluate

RESAMPLES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One way's figures; `outcomes` are empty for the floor itself."""

    values: Mapping[str, float]
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    def cells(self, metrics: Sequence[str]) -> list[str]:
        """The figures for a table; those beyond the floor are marked."""
        return [self._cell(name) for name in metrics]

    def _cell(self, name: str) -> str:
        if name not in self.values:
            return UNKNOWN
        told = number(self.values[name])
        found = self.outcomes.get(name)
        return f"{told} (p {found.p_value:.2f})" if found and is_beyond(found) else told


def qualities(
    samples: Mapping[str, str], reference: str, *, metrics: Sequence[str], classifier: str
) -> dict[str, Quality]:
    """Each way's figures; `samples` are sets by names, two or more, the first the floor.

    Raises what `pipelines.evaluate.run.evaluate` raises.
    """
    (first, floor), *others = samples.items()
    found = {}
    for name, url in others:
        config = EvaluateConfig(
            samples=url,
            reference=reference,
            floor=floor,
            metrics=tuple(metrics),
            classifier=classifier,
            bootstrap=RESAMPLES,
            progress=False,
        )
        outcomes = {outcome.name: outcome for outcome in evaluate(config).outcomes}
        values = {name: outcome.value for name, outcome in outcomes.items()}
        found[name] = Quality(values=values, outcomes=outcomes)
    of_floor = {name: outcome.floor for name, outcome in outcomes.items()}
    return {first: Quality(values=of_floor), **found}

"""Measures on this machine, plans for many devices, and says what to run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.placement.plan import MESSAGE_MS, Costs, Plan, plans, recommended
from pipelines.bench.machine import Machine
from pipelines.bench.measurement import Measurement
from pipelines.bench.recipe import PLAIN, Recipe
from pipelines.plan.config import PlanConfig

TITLES = {
    "plain": "no drafter",
    "beside": "a drafter beside each target",
    "pools": "pools of targets and draft actors",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A plan with the recipe that its costs were measured with."""

    plan: Plan
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """`choices`: by number of devices, the fastest of each way; `best`: what to run."""

    choices: dict[int, list[Choice]]
    best: dict[int, Choice]
    tokens_per_row: float
    rows: int
    batch_size: int
    machine: Machine

    def lines(self) -> Iterator[str]:
        """The table and the commands, as Markdown."""
        yield f"Measured at batch {self.batch_size} on {self.machine.line()}."
        yield f"Each device is taken to be like it. {self.rows:,} rows of {self.tokens_per_row:.0f}"
        yield "tokens."
        yield ""
        yield "| devices | way | targets | draft actors | tokens/s | device-hours |"
        yield "|---:|---|---:|---:|---:|---:|"
        for devices, choices in self.choices.items():
            for choice in choices:
                yield self._row(devices, choice)
        yield ""
        for devices, choice in self.best.items():
            yield f"{devices} device{'s' if devices > 1 else ''}: {_command(choice)}"
        yield ""
        yield f"Pools are predicted, with {MESSAGE_MS:.0f} ms for a message there and back; the"
        yield "others scale what was measured."

    def _row(self, devices: int, choice: Choice) -> str:
        plan = choice.plan
        hours = plan.device_hours(self.tokens_per_row * self.rows)
        told = f"**{TITLES[plan.name]}**" if choice == self.best[devices] else TITLES[plan.name]
        figures = f"{plan.targets} | {plan.drafts} | {plan.tokens_s:,.0f} | {hours:,.1f}"
        return f"| {devices} | {told} | {figures} |"


def plan(config: PlanConfig) -> Planned:
    """Measure and plan.

    Raises:
        PacelineError: an option, the input or a checkpoint cannot work.
        StorageError: the input or a checkpoint cannot be read.
    """
    from pipelines.bench.run import measure

    found = measure(config.bench())
    return planned(found.lines, config, found.machine, found.prompts)


def planned(
    lines: Sequence[Measurement], config: PlanConfig, machine: Machine, prompts: int
) -> Planned:
    """From measurements at the batch size and at half of it, over so many prompts."""
    by_recipe = {recipe: costs_of(lines, recipe, config.batch_size) for recipe in drafting(lines)}
    choices: dict[int, list[Choice]] = {}
    best: dict[int, Choice] = {}
    for devices in config.gpus:
        found: dict[str, Choice] = {}
        for recipe, costs in by_recipe.items():
            for each in plans(costs, devices):
                chosen = found.get(each.name)
                if chosen is None or each.tokens_s > chosen.plan.tokens_s:
                    found[each.name] = Choice(plan=each, recipe=recipe)
        ranked = sorted(found.values(), key=lambda choice: -choice.plan.tokens_s)
        choices[devices] = ranked
        first = recommended([choice.plan for choice in ranked])
        best[devices] = next(choice for choice in ranked if choice.plan == first)
    return Planned(
        choices=choices,
        best=best,
        tokens_per_row=_tokens_per_row(lines, max(prompts, config.batch_size)),
        rows=config.rows,
        batch_size=config.batch_size,
        machine=machine,
    )


def drafting(lines: Sequence[Measurement]) -> list[Recipe]:
    """The recipes that draft."""
    found = dict.fromkeys(m.recipe for m in lines if m.recipe is not None)
    return [recipe for recipe in found if not recipe.is_plain]


def costs_of(lines: Sequence[Measurement], recipe: Recipe, batch_size: int) -> Costs:
    """What a recipe costs, of its measurements."""
    at = {(m.recipe, m.batch_size): m for m in lines}
    plain, whole = at[PLAIN, batch_size], at[recipe, batch_size]
    half = at[recipe, batch_size // 2]
    assert whole.round_ms is not None, "loops know their rounds"
    assert half.round_ms is not None, "loops know their rounds"
    return Costs(
        batch_size=batch_size,
        plain_tokens_s=plain.tokens_per_second,
        drafted_tokens_s=whole.tokens_per_second,
        accepted_length=whole.accepted_length or 1.0,
        round_ms=whole.round_ms["round"],
        half_accepted_length=half.accepted_length or 1.0,
        half_verify_ms=half.round_ms["round"] - half.round_ms["draft"],
        half_draft_ms=half.round_ms["draft"],
    )


def _tokens_per_row(lines: Sequence[Measurement], requests: int) -> float:
    """Mean length of a completion; requests that were repeated to fill a batch count alike."""
    plain = next(m for m in lines if m.recipe is not None and m.recipe.is_plain)
    return plain.tokens / requests if plain.tokens else 1.0


def _command(choice: Choice) -> str:
    plan = choice.plan
    actors = f" --draft-actors {plan.drafts}" if plan.drafts else ""
    flags = PLAIN.flags() if plan.name == "plain" else choice.recipe.flags()
    return f"`paceline generate {flags} --target-actors {plan.targets}{actors}`"

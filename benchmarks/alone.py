"""Sections without other software: batches, useless drafters, and the overhead of a round."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from benchmarks.section import Goal, Section, made_of
from benchmarks.timed_model import TimedModel
from benchmarks.useless import UniformGuesser, save_random_draft
from benchmarks.versus import measured
from benchmarks.work import Setting, Work, compete, contestant, make_loop, ours
from models.drafting.draft_models.draft_model import ModelDrafter
from models.loop.token_loop import TokenLoop
from models.targets.target import Target
from pipelines.bench.measurement import Measurement
from pipelines.bench.recipe import PLAIN, Recipe

BATCH_GOAL, USELESS_GOAL, OVERHEAD_GOAL = 1.2, 0.97, 0.10
BATCHES = (8, 16)
LOOKUP = Recipe(drafter="lookup")
AGAIN = "plain again"
USELESS_TURNS = 4  # for each slice, because the differences are small


def batch(work: Work) -> Section:
    """Batches with and without speculation."""
    section = Section(name="batch", title="Batches, with and without speculation")
    section.notes.append(
        "With `auto`, the controller decides whether to draft. The ratio of `draft passes` to "
        "`target passes` shows how often it did."
    )
    for dtype in work.dtypes:
        for size in BATCHES:
            setting = Setting(dtype=dtype, batch_size=size, at_least=2 * size)
            recipes = {**work.recipes(), "lookup": LOOKUP}
            contestants = {name: ours(work, recipe, setting) for name, recipe in recipes.items()}
            series = compete(f"batch {size}, {dtype}", contestants, 3, threads=work.threads)
            lines = measured(series, setting)
            section.add(str(setting), list(lines.values()))
            if size == BATCHES[0]:
                section.goals.append(_batch_goal(setting, lines))
    return section


def _batch_goal(setting: Setting, lines: Mapping[str, Measurement]) -> Goal:
    auto = lines["auto"]
    drafts = (auto.draft_passes or 0) > 0.1 * (auto.target_passes or 1)
    paid = "it drafts" if drafts else "it does not"
    return Goal(
        text=f"draft model (auto) over plain, {setting}, where the controller drafts: here {paid}",
        goal=BATCH_GOAL,
        measured=auto.speed_up,
        why=made_of(auto, lines["plain"]),
        asked=drafts,
    )


def useless(work: Work) -> Section:
    """The cost of a drafter whose tokens are never accepted, with automatic sizes."""
    section = Section(name="useless", title="Useless drafters")
    section.notes.append(
        "The tokens of these drafters are almost never accepted. `plain again` is a second plain "
        "loop; it shows the noise of the measurement."
    )
    with tempfile.TemporaryDirectory() as folder:
        untrained = save_random_draft(work.draft, Path(folder))
        for size in (1, BATCHES[0]):
            setting = Setting(temperature=1.0, batch_size=size, at_least=2 * size)
            plain = make_loop(work, PLAIN, setting)
            guesser = UniformGuesser(plain.target.vocab_size)
            recipe = Recipe(drafter=untrained, draft_width="auto")
            contestants = {
                "plain": contestant(work, plain, setting),
                AGAIN: ours(work, PLAIN, setting),
                "uniform guesses (auto)": ours(work, LOOKUP, setting, drafter=guesser),
                "untrained draft (auto)": ours(work, recipe, setting),
            }
            turns = USELESS_TURNS * len(work.slices)
            series = compete(f"useless, batch {size}", contestants, turns, threads=work.threads)
            lines = measured(series, setting)
            section.add(str(setting), list(lines.values()))
            section.goals += [
                Goal(
                    text=f"{name} over plain, {setting}",
                    goal=USELESS_GOAL,
                    measured=line.speed_up,
                    why=made_of(line, lines["plain"]),
                )
                for name, line in lines.items()
                if name not in ("plain", AGAIN)
            ]
    return section


OVERHEAD_HEADS = (
    "recipe",
    "batch",
    "round ms",
    "target's pass",
    "draft's passes",
    "rest",
    "rest %",
)


def overhead(work: Work) -> Section:
    """The part of a round outside the forward passes of the models."""
    section = Section(name="overhead", title="Overhead of a round")
    section.notes.append(
        "`rest` is the time outside the forward passes of the target model and the draft model: "
        "building drafts, packing, processing distributions, noise, verification, bookkeeping."
    )
    for temperature in work.temperatures:
        rows = []
        for size in (1, BATCHES[1]):
            setting = Setting(temperature=temperature, batch_size=size, at_least=size)
            shares: dict[str, float] = {}
            for name, recipe in {**work.recipes(), "lookup": LOOKUP}.items():
                parts = round_parts(work, recipe, setting)
                shares[name] = parts["rest"] / parts["round"]
                times = [f"{ms:.3f}" for ms in parts.values()]
                rows.append([name, str(size), *times, f"{shares[name]:.1%}"])
            section.goals.append(_overhead_goal(setting, shares))
        caption = f"temperature {temperature:g}, float32, milliseconds"
        section.put(caption, OVERHEAD_HEADS, rows)
    return section


def round_parts(work: Work, recipe: Recipe, setting: Setting) -> dict[str, float]:
    """Milliseconds of a mean round: the target's pass, the draft's passes, the rest."""
    loop = make_loop(work, recipe, setting)
    clock = put_stopwatch(loop)
    run = contestant(work, loop, setting)
    before = 0.0 if clock is None else clock.seconds
    figures = run(0).figures
    assert figures is not None  # it is our own loop
    passes_s = 0.0 if clock is None else clock.seconds - before
    total = figures.round_ms()
    draft_ms = 1e3 * passes_s / max(figures.rounds, 1)
    rest = total["round"] - total["score"] - draft_ms
    return {"round": total["round"], "score": total["score"], "draft": draft_ms, "rest": rest}


def put_stopwatch(loop: TokenLoop) -> TimedModel | None:
    """Time the passes of the loop's draft model, if it has one."""
    if not isinstance(loop.drafter, ModelDrafter):
        return None
    clock = TimedModel(loop.drafter.model)
    loop.drafter.model = cast(Target, clock)
    return clock


def _overhead_goal(setting: Setting, shares: Mapping[str, float]) -> Goal:
    """The goal for the recipe with the largest share."""
    worst = max(shares, key=lambda name: shares[name])
    others = [f"{name} {share:.1%}" for name, share in shares.items()]
    return Goal(
        text=f"own part of a round, {setting}, the worst recipe ({worst})",
        goal=OVERHEAD_GOAL,
        measured=shares[worst],
        at_most=True,
        percent=True,
        why=", ".join(others),
    )

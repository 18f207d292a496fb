"""Should I draft, with what, how much? A table of measurements in a sentence or two."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.bench.measurement import Measurement
from pipelines.bench.recipe import Recipe, names
from pipelines.engine_options import AUTO

WORTH = 1.03  # below this, a measured speed-up is no reason to draft
AS_GOOD = 0.97  # of the best speed: what `auto` may lose to be recommended in its stead


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The fastest way at one batch size."""

    batch_size: int
    best: Measurement
    pays: bool


def choices(lines: Sequence[Measurement]) -> list[Choice]:
    """One per batch size, in their order; lines without a recipe do not compete."""
    out = []
    for batch_size in dict.fromkeys(line.batch_size for line in lines):
        drafting = [m for m in _competing(lines, batch_size) if m.recipe and not m.recipe.is_plain]
        if drafting:
            best = max(drafting, key=lambda m: m.speed_up)
            out.append(Choice(batch_size=batch_size, best=best, pays=best.speed_up >= WORTH))
    return out


def advice(lines: Sequence[Measurement]) -> list[str]:
    """The recommendation, and what else must be said of it."""
    found = choices(lines)
    if not found:
        return ["Nothing was drafted: name a drafter to compare plain decoding with."]
    told = [f"{_sentence(found)}."]
    told += [f"`paceline generate {flags}`" for flags in _flags(found)]
    return told + _on_auto(lines, found) + _on_tokens(lines)


def _sentence(found: Sequence[Choice]) -> str:
    """Batch sizes that share their best recipe share a clause."""
    clauses: dict[Recipe | None, list[str]] = {}
    for choice in found:
        key = choice.best.recipe if choice.pays else None
        clauses.setdefault(key, []).append(_at(choice))
    told = [
        f"do not draft {_listed(places)}" if recipe is None else _how(recipe, places)
        for recipe, places in clauses.items()
    ]
    sentence = "; ".join(told)
    return sentence[0].upper() + sentence[1:]


def _at(choice: Choice) -> str:
    if choice.pays:
        return f"{choice.best.speed_up:.2f}× at batch {choice.batch_size}"
    return f"at batch {choice.batch_size} (the best was {choice.best.speed_up:.2f}×)"


def _how(recipe: Recipe, places: Sequence[str]) -> str:
    size = "the size chosen every round" if recipe.size == AUTO else recipe.size
    rule = "" if recipe.verify == "match" else f", verified by {recipe.verify}"
    return f"draft with {Path(recipe.drafter).name}, {size}{rule}: {_listed(places)}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _flags(found: Sequence[Choice]) -> list[str]:
    """The options to give, once per recipe."""
    used: dict[str, list[int]] = {}
    for choice in found:
        recipe = choice.best.recipe
        assert recipe is not None  # others do not compete
        flags = recipe.flags() if choice.pays else Recipe().flags()
        used.setdefault(flags, []).append(choice.batch_size)
    return [f"{flags} --batch-size {'|'.join(map(str, sizes))}" for flags, sizes in used.items()]


def _on_auto(lines: Sequence[Measurement], found: Sequence[Choice]) -> list[str]:
    """Whether letting the controller choose would have done as well everywhere."""
    if not any(choice.pays for choice in found):
        return []
    drafting = [m.recipe for m in lines if m.recipe and not m.recipe.is_plain]
    for recipe, name in names([r for r in drafting if not r.is_fixed]).items():
        worst = min(_share(lines, choice, recipe) for choice in found)
        if worst >= AS_GOOD:
            lost = f"{max(0.0, 1 - worst):.0%}"
            return [
                f"One setting for all of them: `{recipe.flags()}` ({name}) lost at most {lost} of "
                "the best speed."
            ]
    return []


def _share(lines: Sequence[Measurement], choice: Choice, recipe: Recipe) -> float:
    """Of the best speed at this batch size, plain included, what a recipe reached."""
    here = _competing(lines, choice.batch_size)
    mine = max((m.speed_up for m in here if m.recipe == recipe), default=0.0)
    return mine / max(1.0, choice.best.speed_up if choice.pays else 1.0)


def _on_tokens(lines: Sequence[Measurement]) -> list[str]:
    """What is not the same as plain decoding."""
    claimed = [m for m in lines if m.exactness == "identical" and m.same is not None]
    differ = [m for m in claimed if m.same != m.compared]
    if claimed and not differ:
        return ["Every recipe called identical gave the same tokens as plain decoding."]
    return [
        f"{m.name} at batch {m.batch_size}: {m.compared - (m.same or 0)} of {m.compared} "
        "completions differ from plain decoding although they are labelled identical. Please "
        "report this as a bug."
        for m in differ
    ]


def _competing(lines: Sequence[Measurement], batch_size: int) -> list[Measurement]:
    return [m for m in lines if m.batch_size == batch_size and m.recipe is not None]

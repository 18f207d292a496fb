"""A recipe: who guesses ahead and how much. What `paceline bench` sets side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.registry import NONE, RULES, drafter_entry
from pipelines.engine_options import AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """As in EngineConfig: a width of 1 is a chain, a wider one a tree."""

    drafter: str = NONE
    draft_tokens: int | str = AUTO
    draft_width: int | str = 1
    draft_nodes: int | None = None
    verify: str = "match"

    @property
    def is_plain(self) -> bool:
        """Whether nobody guesses."""
        return self.drafter == NONE

    @property
    def is_fixed(self) -> bool:
        """Whether the draft has the same size every round."""
        return not self.is_plain and self.draft_tokens != AUTO

    @property
    def size(self) -> str:
        """How much is drafted, in words."""
        if self.is_plain or not self.is_fixed:
            return "" if self.is_plain else AUTO
        if self.draft_width == 1:
            return f"chain of {self.draft_tokens}"
        kept = "" if self.draft_nodes is None else f", {self.draft_nodes} likeliest"
        return f"tree of {self.draft_tokens}×{self.draft_width}{kept}"

    def flags(self) -> str:
        """The options of `paceline generate` that choose it."""
        if self.is_plain:
            return "--drafter none"
        width = f" --draft-width {self.draft_width}" if self.is_fixed else ""
        width += "" if self.draft_nodes is None else f" --draft-nodes {self.draft_nodes}"
        rule = "" if self.verify == "match" else f" --verify {self.verify}"
        return f"--drafter {self.drafter} --draft-tokens {self.draft_tokens}{width}{rule}"


PLAIN = Recipe()


def grid(
    drafters: Sequence[str],
    draft_tokens: Sequence[int | str],
    draft_widths: Sequence[int | str],
    verify: Sequence[str],
) -> list[Recipe]:
    """Plain first, then every sensible combination once: trees need a draft model and `match`."""
    recipes = [PLAIN]
    for drafter in drafters:
        if drafter == NONE:
            continue
        for rule in verify:
            wide = not RULES[rule].sampled and drafter_entry(drafter).max_width > 1
            widths = draft_widths if wide else [1]
            recipes += [
                Recipe(drafter=drafter, draft_tokens=tokens, draft_width=width, verify=rule)
                for tokens in draft_tokens
                for width in _widths(tokens, widths)
            ]
    return list(dict.fromkeys(recipes))


def _widths(tokens: int | str, widths: Sequence[int | str]) -> Iterator[int | str]:
    """`auto` chooses width and tokens together: only one of them fixed is no recipe of its own."""
    if tokens == AUTO:
        yield 1 if all(width == 1 for width in widths) else AUTO
        return
    fixed = [width for width in widths if width != AUTO]
    yield from fixed or [1]


def names(recipes: Sequence[Recipe]) -> dict[Recipe, str]:
    """Short names that tell the recipes apart; a draft is called by its folder where that does."""
    folders = {r.drafter: Path(r.drafter).name for r in recipes}
    clear = len(set(folders.values())) == len(folders)
    out = {}
    for recipe in recipes:
        drafter = folders[recipe.drafter] if clear else recipe.drafter
        rule = "" if recipe.verify == "match" else recipe.verify
        words = ("plain",) if recipe.is_plain else (drafter, recipe.size, rule)
        out[recipe] = " ".join(filter(None, words))
    return out

"""The figures of a generate job: what became of its rows, how fast, at what cost per round."""

import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from models.exactness import weakest
from models.figures import Figures
from pipelines.manifest import Entry

PACKAGES = ("paceline", "ray", "torch", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Rows, tokens and exactness are the output folder's; times and passes are this run's.

    `rows_resumed` of the rows were committed by earlier runs. `seconds` begin with the first
    request and end with the last commit; `startup_seconds` come before. `accepted_length` is
    tokens per request and target pass. `round_ms` is the mean round and its parts. `images` (the
    output folder's) and `passes_per_image` (this run's target passes) are None for texts.
    """

    output: str
    rows: int
    rows_failed: int
    rows_resumed: int
    prompt_tokens: int
    tokens: int
    seconds: float
    startup_seconds: float
    tokens_per_second: float
    rounds: int
    target_passes: int
    prefill_passes: int
    draft_passes: int
    drafted: int
    accepted: int
    accepted_length: float
    acceptance_by_position: tuple[float, ...]
    round_ms: dict[str, float]
    prefill_seconds: float
    exactness: str
    noise: str
    images: int | None = None
    passes_per_image: float | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON holds it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        failed = f", {self.rows_failed} of them failed" if self.rows_failed else ""
        resumed = f", {self.rows_resumed} from earlier runs" if self.rows_resumed else ""
        parts = [f"{name} {ms:.2f}" for name, ms in self.round_ms.items() if name != "round"]
        return [
            f"rows             {self.rows}{failed}{resumed}",
            f"tokens           {self.tokens} in {self.seconds:.1f} s: "
            f"{self.tokens_per_second:.1f} tokens/s (start-up {self.startup_seconds:.1f} s)",
            f"accepted length  {self.accepted_length:.2f} tokens per target pass",
            f"round            {self.round_ms['round']:.2f} ms: {', '.join(parts)}",
            *self._images(),
            f"exactness        {self.exactness}",
            f"output           {self.output}",
        ]

    def _images(self) -> list[str]:
        if self.images is None:
            return []
        passes = self.passes_per_image
        told = f": {passes:.1f} target passes each" if passes else ""
        return [f"images           {self.images}{told}"]


def summarize(
    entries: Iterable[Entry],
    *,
    earlier: Iterable[Entry],
    figures: Figures,
    seconds: float,
    kind: str,
    **rest: Any,
) -> Summary:
    """The summary of all committed shards, of which earlier runs committed some."""
    entries, earlier = list(entries), list(earlier)
    tokens = sum(entry.tokens for entry in entries)
    new_tokens = tokens - sum(entry.tokens for entry in earlier)
    done = [sum(entry.rows - entry.rows_failed for entry in part) for part in (entries, earlier)]
    of_images = kind == "images"
    return Summary(
        rows=sum(entry.rows for entry in entries),
        rows_failed=sum(entry.rows_failed for entry in entries),
        rows_resumed=sum(entry.rows for entry in earlier),
        prompt_tokens=sum(entry.prompt_tokens for entry in entries),
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=new_tokens / seconds if seconds > 0 else 0.0,
        rounds=figures.rounds,
        target_passes=figures.target_passes,
        prefill_passes=figures.prefill_passes,
        draft_passes=figures.draft_passes,
        drafted=figures.drafted,
        accepted=figures.accepted,
        accepted_length=figures.accepted_length,
        acceptance_by_position=figures.acceptance_by_position,
        round_ms=figures.round_ms(),
        prefill_seconds=figures.prefill_s,
        exactness=weakest([entry.exactness for entry in entries]),
        images=done[0] if of_images else None,
        passes_per_image=figures.round_rows / max(1, done[0] - done[1]) if of_images else None,
        versions=versions(),
        **rest,
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages whose versions can change a result."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }

"""The figures of a generate job: what became of its rows, how fast, at what cost per round."""

import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from models.exactness import weakest
from models.loop.figures import Figures
from pipelines.generate.reporting.history import History
from pipelines.output.manifest import Entry

PACKAGES = ("paceline", "ray", "torch", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of a job, summed over all of its runs; `run_` stands before those of this run.

    `rows_resumed` of the rows were there before this run. Of the `rows_failed`, the next run tries
    the `rows_retryable` again; of these, the `rows_without_room` need more memory. `seconds` of
    generating begin with a run's first request and end with its last commit; `startup_seconds` come
    before. `tokens_per_second` is `tokens` over `seconds`. `accepted_length` is tokens per request
    and target pass. `round_ms` is the mean round and its parts. `prefix_hit_tokens` of prompts were
    in a cache and not read; `preemptions` counts requests that gave way to others in a full cache.
    What a killed run counted of passes and rounds is lost, its rows, tokens and seconds are not.
    `images` and `passes_per_image` are None for texts. `first_error` is the id and the error of the
    first row that failed.
    """

    output: str
    rows: int
    rows_failed: int
    rows_retryable: int
    rows_without_room: int
    rows_resumed: int
    prompt_tokens: int
    tokens: int
    seconds: float
    startup_seconds: float
    tokens_per_second: float
    run_rows: int
    run_tokens: int
    run_seconds: float
    run_startup_seconds: float
    run_tokens_per_second: float
    runs: int
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
    prefix_hit_tokens: int
    preemptions: int
    exactness: str
    noise: str
    images: int | None = None
    passes_per_image: float | None = None
    first_error: str | None = None
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
            *self._this_run(),
            f"accepted length  {self.accepted_length:.2f} tokens per target pass{self._accepted()}",
            f"round            {self.round_ms['round']:.2f} ms: {', '.join(parts)}",
            *self._images(),
            f"exactness        {self.exactness}",
            f"output           {self.output}",
        ]

    def _accepted(self) -> str:
        """Where anything was drafted."""
        share = self.accepted / self.drafted if self.drafted else 0.0
        return f"; {share:.0%} of {self.drafted} drafted tokens accepted" if self.drafted else ""

    def _this_run(self) -> list[str]:
        """Where earlier runs did some of it."""
        if not self.rows_resumed:
            return []
        if not self.run_rows:
            return ["this run         nothing was left to do"]
        return [
            f"this run         {self.run_tokens} of them in {self.run_seconds:.1f} s: "
            f"{self.run_tokens_per_second:.1f} tokens/s (start-up {self.run_startup_seconds:.1f} s)"
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
    earlier_seconds: float,
    history: History,
    startup_seconds: float,
    kind: str,
    **rest: Any,
) -> Summary:
    """The summary of all committed shards.

    Args:
        earlier: those that this run left as they were.
        earlier_seconds: that other runs spent, on shards of which this run redid some.
        history: what all runs counted, this one included.
        startup_seconds: of this run.
    """
    entries, earlier = list(entries), list(earlier)
    figures, tokens = history.figures, sum(entry.tokens for entry in entries)
    rows, rows_failed = (sum(e.rows for e in entries), sum(e.rows_failed for e in entries))
    rows_resumed = sum(entry.rows for entry in earlier)
    run_tokens = tokens - sum(entry.tokens for entry in earlier)
    seconds = sum(entry.seconds for entry in entries)
    run_seconds = seconds - earlier_seconds
    images = rows - rows_failed if kind == "images" else None
    return Summary(
        rows=rows,
        rows_failed=rows_failed,
        rows_retryable=sum(entry.rows_retryable for entry in entries),
        rows_without_room=sum(entry.rows_without_room for entry in entries),
        rows_resumed=rows_resumed,
        prompt_tokens=sum(entry.prompt_tokens for entry in entries),
        tokens=tokens,
        seconds=seconds,
        startup_seconds=history.startup_seconds,
        tokens_per_second=_per_second(tokens, seconds),
        run_rows=rows - rows_resumed,
        run_tokens=run_tokens,
        run_seconds=run_seconds,
        run_startup_seconds=startup_seconds,
        run_tokens_per_second=_per_second(run_tokens, run_seconds),
        runs=history.runs,
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
        prefix_hit_tokens=figures.prefix_hit_tokens,
        preemptions=figures.preemptions,
        exactness=weakest([entry.exactness for entry in entries]),
        images=images,
        passes_per_image=_passes_per_image(tokens, images, figures),
        engine=dict(history.engine),
        versions=versions(),
        **rest,
    )


def _per_second(tokens: int, seconds: float) -> float:
    return tokens / seconds if seconds > 0 else 0.0


def _passes_per_image(tokens: int, images: int | None, figures: Figures) -> float | None:
    """Target passes that an image's tokens took."""
    if not images or not figures.accepted_length:
        return None if images is None else 0.0
    return tokens / images / figures.accepted_length


def versions() -> dict[str, str]:
    """Of Python and of the packages whose versions can change a result."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }

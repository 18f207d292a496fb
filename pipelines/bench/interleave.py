"""Runs side by side: each contestant once, again and again, so that a slow minute hits them all."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from models.exactness import weakest
from models.loop.figures import Figures
from models.loop.token_loop import TokenLoop
from models.requests.request import Request

Outputs = Mapping[str, tuple[int, ...]]  # request id to tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One contestant's work, once; `figures` are those of our own loop."""

    seconds: float
    outputs: Outputs
    figures: Figures | None = None
    exactness: str = ""

    @property
    def tokens(self) -> int:
        """Generated tokens of all requests."""
        return sum(map(len, self.outputs.values()))

    @property
    def tokens_per_second(self) -> float:
        """Reading the prompts included."""
        return self.tokens / self.seconds


Contestant = Callable[[int], Run]  # is told which turn it is


@dataclass(slots=True)
class Series:
    """All runs of one contestant, in order."""

    runs: list[Run] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """The median."""
        return statistics.median(run.tokens_per_second for run in self.runs)

    @property
    def middle(self) -> Run:
        """The run with the median speed (of an even number, the slower one)."""
        ordered = sorted(self.runs, key=lambda run: run.tokens_per_second)
        return ordered[(len(ordered) - 1) // 2]

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Every request's tokens, those of its first run."""
        first = reversed(self.runs)
        return {name: tokens for run in first for name, tokens in run.outputs.items()}

    def over(self, other: "Series") -> float:
        """Median of the ratios of tokens/s, run by run: both had the same minute."""
        pairs = zip(self.runs, other.runs, strict=True)
        return statistics.median(a.tokens_per_second / b.tokens_per_second for a, b in pairs)


def collect(
    contestants: Mapping[str, Contestant],
    repeats: int,
    on_run: Callable[[str, Run], None] = lambda name, run: None,
) -> dict[str, Series]:
    """Run all contestants, `repeats` times in turn; each is told which turn it is."""
    series = {name: Series() for name in contestants}
    for turn in range(repeats):
        for name, contestant in contestants.items():
            run = contestant(turn)
            series[name].runs.append(run)
            on_run(name, run)
    return series


def race(
    contestants: Mapping[str, Contestant], repeats: int, bar: "tqdm[Any]"
) -> dict[str, Series]:
    """The same, shown on a progress bar of runs."""

    def show(name: str, run: Run) -> None:
        bar.set_postfix_str(f"{name}: {run.tokens_per_second:.0f} tokens/s", refresh=False)
        bar.update()

    return collect(contestants, repeats, show)


def warmed(
    loop: TokenLoop, warm: Sequence[Request], asked: Callable[[int], Sequence[Request]]
) -> Contestant:
    """A loop that has run some requests before; `asked`: those of each turn."""
    loop.run(warm)
    return lambda turn: run_loop(loop, asked(turn))


def run_loop(loop: TokenLoop, requests: Sequence[Request]) -> Run:
    """Run requests through a token loop, timed and counted."""
    loop.reset_figures()
    began = time.perf_counter()
    results = loop.run(requests)
    return Run(
        seconds=time.perf_counter() - began,
        outputs={result.id: result.tokens for result in results},
        figures=loop.figures(),
        exactness=weakest([result.exactness for result in results]),
    )


def verdicts(outputs: Outputs, reference: Outputs) -> list[bool]:
    """Of the requests that the reference knows: which ones have its tokens."""
    return [reference[name] == tokens for name, tokens in outputs.items() if name in reference]

"""The demo: one file of prompts, three ways of decoding on a local Ray, one table.

Plain decoding, prompt lookup and a draft model complete the same prompts through the same pipeline,
in turn and several times, so that a slow minute of the machine slows all of them. The table shows
medians. The rows of the last turn are in out/demo/ as Parquet. All three ways must write the same
tokens: the exit code is 1 if they do not.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from cluster.connect import connected
from cluster.errors import ClusterError
from models.errors import PacelineError
from pipelines.bench.interleave import Run, Series, collect, verdicts
from pipelines.bench.machine import this_machine
from pipelines.bench.table import markdown
from pipelines.generate.config import GenerateConfig
from pipelines.generate.job import generate
from pipelines.generate.reporting.summary import Summary
from pipelines.interruption import leave_if_interrupted, obey_signals

HERE = Path(__file__).resolve().parent
LOGICAL_CPUS = 4  # of the private cluster: a target, and what reads and writes
PLAIN = "plain"
HEADS = ("way", "tokens/s", "speed-up", "all turns", "tokens/pass", "same tokens")


def main() -> int:
    """0: the same tokens; 1: others; 2: it could not run."""
    obey_signals()
    try:
        return demo(parse())
    except (PacelineError, ClusterError) as error:
        leave_if_interrupted()
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        leave_if_interrupted()
        raise


def demo(options: argparse.Namespace) -> int:
    ways = {PLAIN: "none", "lookup": "lookup", "draft model": options.draft}
    configs = {name: configuration(options, name, drafter) for name, drafter in ways.items()}
    summaries: dict[str, Summary] = {}
    with connected(min_cpus=LOGICAL_CPUS):
        series = collect(contestants(configs, summaries), options.turns, say)
    print(f"\n{options.target} on {this_machine().line()}\n")
    print(table(series, summaries, options.turns))
    return verdict(series, options.output)


def contestants(
    configs: Mapping[str, GenerateConfig], summaries: dict[str, Summary]
) -> dict[str, Callable[[int], Run]]:
    """What runs each job once; `summaries` are those of the last turn."""

    def run(name: str, config: GenerateConfig, turn: int) -> Run:
        summary = summaries[name] = generate(config)
        outputs = read_tokens(config.output)
        return Run(seconds=summary.seconds, outputs=outputs, exactness=summary.exactness)

    return {name: partial(run, name, config) for name, config in configs.items()}


def say(name: str, run: Run) -> None:
    print(f"{name}: {run.tokens_per_second:.0f} tokens/s", file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default=str(HERE / "models/text-target"))
    parser.add_argument("--draft", default=str(HERE / "models/text-draft"))
    parser.add_argument("--input", default=str(HERE / "prompts.jsonl"))
    parser.add_argument("--output", default="out/demo")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


def configuration(options: argparse.Namespace, name: str, drafter: str) -> GenerateConfig:
    """The same job for every drafter; an output of an earlier demo is written anew."""
    return GenerateConfig(
        target=options.target,
        drafter=drafter,
        input=options.input,
        output=str(Path(options.output) / name.replace(" ", "-")),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        batch_size=options.batch_size,
        threads=options.threads,
        resume=False,
        progress=False,
    )


def read_tokens(output: str) -> dict[str, tuple[int, ...]]:
    """Each row's tokens, by its id."""
    rows = pq.read_table(output, columns=["id", "tokens"])
    tokens = map(tuple, rows["tokens"].to_pylist())
    return dict(zip(rows["id"].to_pylist(), tokens, strict=True))


def table(series: Mapping[str, Series], summaries: Mapping[str, Summary], turns: int) -> str:
    """One row per way; a speed-up is the median of those of the turns."""
    rows = [
        [
            name,
            f"{found.tokens_per_second:.0f}",
            f"{found.over(series[PLAIN]):.2f}×",
            spread(ratios(found, series[PLAIN])),
            f"{summaries[name].accepted_length:.2f}",
            "yes" if all(same(found, series[PLAIN])) else "NO",
        ]
        for name, found in series.items()
    ]
    return f"Medians of {turns} interleaved turns.\n\n{markdown(HEADS, rows)}"


def ratios(found: Series, plain: Series) -> list[float]:
    """Of tokens per second, turn by turn."""
    pairs = zip(found.runs, plain.runs, strict=True)
    return [run.tokens_per_second / other.tokens_per_second for run, other in pairs]


def spread(values: Sequence[float]) -> str:
    """The least and the greatest."""
    return f"{min(values):.2f}–{max(values):.2f}×"


def same(found: Series, plain: Series) -> Sequence[bool]:
    """Of each row of each turn, whether it is plain's."""
    return [equal for run in found.runs for equal in verdicts(run.outputs, plain.outputs)]


def verdict(series: Mapping[str, Series], output: str) -> int:
    """Say whether the outputs are the same; the exit code."""
    print(f"\nThe rows are in {output}, one folder for each way.")
    differing = [
        f"{name} ({same(found, series[PLAIN]).count(False)})"
        for name, found in series.items()
        if not all(same(found, series[PLAIN]))
    ]
    if differing:
        print(f"DIFFERENT TOKENS than plain decoding in rows of: {', '.join(differing)}")
        return 1
    rows = len(series[PLAIN].outputs)
    print(f"The three outputs are the same tokens: {rows} of {rows} rows.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

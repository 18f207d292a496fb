"""The demo: one file of prompts, three ways of decoding on a local Ray, one table.

Plain decoding, prompt lookup and a draft model complete the same prompts through the same pipeline.
The rows go to out/demo/ as Parquet; the table says how fast each way was, and whether all three
wrote the same tokens (they must: the exit code is 1 if they do not).
"""

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq

from cluster.connect import connected
from cluster.errors import ClusterError
from models.errors import PacelineError
from pipelines.config import GenerateConfig
from pipelines.generate import generate
from pipelines.machine import this_machine
from pipelines.measurement import Measurement
from pipelines.summary import Summary
from pipelines.table import table

HERE = Path(__file__).resolve().parent
LOGICAL_CPUS = 4  # of the private cluster: a target, and what reads and writes


def main() -> int:
    """0: the same tokens; 1: others; 2: it could not run."""
    try:
        return demo(parse())
    except (PacelineError, ClusterError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


def demo(options: argparse.Namespace) -> int:
    ways = {"plain": "none", "lookup": "lookup", "draft model": options.draft}
    summaries, tokens = {}, {}
    with connected(min_cpus=LOGICAL_CPUS):
        for name, drafter in ways.items():
            print(f"{name}:", file=sys.stderr)
            config = configuration(options, name, drafter)
            summaries[name] = generate(config)
            tokens[name] = read_tokens(config.output)
    lines = [measured(name, summaries, tokens, options.batch_size) for name in ways]
    print(f"\n{options.target} on {this_machine().line()}\n")
    print(table(lines))
    return verdict(lines, options.output)


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
    )


def read_tokens(output: str) -> dict[str, list[int]]:
    """Each row's tokens, by its id."""
    rows = pq.read_table(output, columns=["id", "tokens"])
    return dict(zip(rows["id"].to_pylist(), rows["tokens"].to_pylist(), strict=True))


def measured(
    name: str,
    summaries: dict[str, Summary],
    tokens: dict[str, dict[str, list[int]]],
    batch_size: int,
) -> Measurement:
    """One way as a line of the table, compared with plain."""
    found, plain = summaries[name], summaries["plain"]
    same = sum(tokens[name].get(key) == row for key, row in tokens["plain"].items())
    return Measurement(
        name=name,
        batch_size=batch_size,
        tokens_per_second=found.tokens_per_second,
        speed_up=found.tokens_per_second / plain.tokens_per_second,
        accepted_length=found.accepted_length,
        round_ms=found.round_ms,
        target_passes=found.target_passes,
        draft_passes=found.draft_passes,
        exactness=found.exactness,
        same=same,
        compared=len(tokens["plain"]),
        tokens=found.tokens,
        seconds=found.seconds,
    )


def verdict(lines: list[Measurement], output: str) -> int:
    """Say whether the outputs are the same; the exit code."""
    differing = [f"{m.name} ({m.compared - (m.same or 0)})" for m in lines if m.same != m.compared]
    print(f"\nThe rows are in {output}, one folder each.")
    if differing:
        print(f"DIFFERENT TOKENS than plain decoding in rows of: {', '.join(differing)}")
        return 1
    print(
        f"The three outputs are the same tokens: {lines[0].compared} of {lines[0].compared} rows."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

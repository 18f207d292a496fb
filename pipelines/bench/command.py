"""`paceline bench` as a command: should I draft, with what, how much?"""

import argparse

from pipelines.bench.config import BenchConfig
from pipelines.flags import Subparsers, add_command, read_options
from pipelines.options import from_mapping

ABOUT = """\
Measure drafters on your own model and prompts: should I draft, with which
drafter, and how many tokens ahead?

Runs the same prompts with every drafter, draft size and batch size in turn
(in this process, without Ray), prints a table and a recommendation, and
writes both together with a plot.
"""
EXAMPLE = """\
example: does prompt lookup pay, does a draft model, and how many tokens ahead?

  paceline bench --target examples/models/text-target \\
      --drafter lookup examples/models/text-draft \\
      --input examples/prompts.jsonl --batch-size 1 8 \\
      --draft-tokens auto 2 4 --draft-width 1 4

Plain decoding is always measured as well. `--draft-tokens auto` lets the
controller choose number and width every round. Options can be in a file,
--config bench.yaml, with lines such as `drafter: [lookup]`.
"""


def register(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    add_command(
        subparsers,
        "bench",
        BenchConfig,
        run=run,
        usage="paceline bench --target PATH --input FILE_OR_FOLDER [--drafter ...] [options]",
        summary="measure whether, with what and how much to draft",
        about=ABOUT,
        example=EXAMPLE,
        line="max_tokens: 64",
    )


def config_of(options: argparse.Namespace) -> BenchConfig:
    """The file's options, and before them those of the command line."""
    return from_mapping(BenchConfig, read_options(options, BenchConfig))


def run(options: argparse.Namespace) -> int:
    """Run the bench and print its table."""
    config = config_of(options)
    from pipelines.bench.run import bench

    found = bench(config)
    print(found.text())
    print(f"\nwritten to {config.output}: bench.md, bench.json, bench.png")
    return 0

"""`paceline plan` as a command."""

import argparse

from pipelines.flags import Subparsers, add_command, read_options
from pipelines.options import from_mapping
from pipelines.plan.config import PlanConfig

ABOUT = """\
Measure a target and a drafter on this machine, and say how to use several
devices of its kind: a drafter beside each target, or pools of targets and draft
actors, how many of each, and what a data set would cost.
"""
EXAMPLE = """\
example: one to eight GPUs, a million rows

  paceline plan --target examples/models/text-target \\
      --drafter examples/models/text-draft --input examples/prompts.jsonl \\
      --gpus 1 2 4 8 --rows 1000000
"""


def register(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    add_command(
        subparsers,
        "plan",
        PlanConfig,
        run=run,
        usage="paceline plan --target PATH --drafter PATH --input FILE_OR_FOLDER [options]",
        summary="say how many targets and draft actors to run, from measured costs",
        about=ABOUT,
        example=EXAMPLE,
        line="gpus: [4, 8]",
    )


def config_of(options: argparse.Namespace) -> PlanConfig:
    """The file's options, and before them those of the command line."""
    return from_mapping(PlanConfig, read_options(options, PlanConfig))


def run(options: argparse.Namespace) -> int:
    """Measure and print the plan."""
    config = config_of(options)
    from pipelines.plan.run import plan

    print("\n".join(plan(config).lines()))
    return 0

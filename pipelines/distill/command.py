"""`paceline distill` as a command: its options, a YAML file's and their order."""

import argparse

from pipelines.distill.config import DistillConfig
from pipelines.flags import Subparsers, add_command, read_options
from pipelines.options import from_mapping

ABOUT = """\
Train a student of an image target: a network that makes an image in one or two
passes instead of one pass per token.

Stages: the target makes images to learn from (records), the student is trained
on them (train), its images are compared with the target's own (evaluate), and
the student is written to OUTPUT/export. A run that was interrupted continues
when the same command is run again.
"""
EXAMPLE = """\
example: a student of the digits model, then images from it

  paceline distill student --target examples/models/digits-raster \\
      --records 4000 --train-steps 600 --output out/student

  paceline generate --student out/student/export --steps 1 \\
      --input labels.jsonl --prompt-field label --output out/fast-digits

docs/distill.md describes stages, files and figures.
"""


def register(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "distill",
        DistillConfig,
        run=run,
        usage="paceline distill student --target PATH --output FOLDER [options]",
        summary="train a student that makes images in one or two passes",
        about=ABOUT,
        example=EXAMPLE,
        line="records: 4000",
    )
    parser.add_argument("what", choices=("student",), help="what to train")


def config_of(options: argparse.Namespace) -> DistillConfig:
    """The file's options, and before them those of the command line."""
    return from_mapping(DistillConfig, read_options(options, DistillConfig))


def run(options: argparse.Namespace) -> int:
    """Make the student and say where it is."""
    config = config_of(options)
    from pipelines.distill.run import distill

    print(f"student    {distill(config)}")
    return 0

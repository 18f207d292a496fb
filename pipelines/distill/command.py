"""`paceline distill` as a command: its options, a YAML file's and their order."""

import argparse

from pipelines.distill.config import DistillConfig
from pipelines.flags import add_flags, given, read_yaml
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


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "distill",
        usage="paceline distill student --target PATH --output FOLDER [options]",
        help="train a student that makes images in one or two passes",
        description=ABOUT,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", choices=("student",), help="what to train")
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="read options from a YAML file (records: 4000)"
    )
    add_flags(parser, DistillConfig)
    parser.set_defaults(run=run)


def config_of(options: argparse.Namespace) -> DistillConfig:
    """The file's options, and before them those of the command line."""
    values = read_yaml(options.config) if options.config else {}
    return from_mapping(DistillConfig, values | given(options, DistillConfig))


def run(options: argparse.Namespace) -> int:
    """Make the student and say where it is."""
    config = config_of(options)
    from pipelines.distill.run import distill

    print(f"student    {distill(config)}")
    return 0

"""`paceline distill` as a command: what can be trained, each with its options."""

import argparse

from pipelines.distill.student_config import StudentOptions
from pipelines.flags import Subparsers, add_command, read_options
from pipelines.options import from_mapping

SUMMARY = "train a student that makes images in one or two passes"
STUDENT = """\
Train a student of an image target: a network that makes an image in one or two
passes instead of one pass per token.

Stages: the target makes images to learn from (records), the student is trained
on them (train), its images are compared with the target's own (evaluate), and
the student is written to OUTPUT/export. A run that was interrupted continues
when the same command is run again.
"""
STUDENT_EXAMPLE = """\
example: a student of the digits model, then images from it

  paceline distill student --target examples/models/digits-raster \
      --records 4000 --train-steps 600 --output out/student

  paceline generate --student out/student/export --steps 1 \
      --input labels.jsonl --prompt-field label --output out/fast-digits

docs/distill.md describes stages, files and figures.
"""


def register(subparsers: Subparsers) -> None:
    """Add the subcommand, with one of its own for each thing to train."""
    parser = subparsers.add_parser("distill", help=SUMMARY, description=SUMMARY)
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    add_command(
        what,
        "student",
        StudentOptions,
        run=run_student,
        usage="paceline distill student --target PATH --output FOLDER [options]",
        summary=SUMMARY,
        about=STUDENT,
        example=STUDENT_EXAMPLE,
        line="records: 4000",
    )


def student_config(options: argparse.Namespace) -> StudentOptions:
    """The file's options, and before them those of the command line."""
    return from_mapping(StudentOptions, read_options(options, StudentOptions))


def run_student(options: argparse.Namespace) -> int:
    """Make the student and say where it is."""
    config = student_config(options)
    from pipelines.distill.student import distill

    print(f"student    {distill(config)}")
    return 0

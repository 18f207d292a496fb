"""`paceline distill` as a command: what can be trained, each with its options."""

import argparse

from cluster.storage import storage
from models.errors import InvalidOption
from pipelines.distill.config import DistillConfig
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.students.config import StudentOptions
from pipelines.flags import Subparsers, add_command, read_options
from pipelines.options import from_mapping

FORMATS = ("paceline", "speculators", "sglang")
SUMMARY = "train a student that makes images in few passes, or a drafter"
STUDENT_SUMMARY = "train a student that makes images in one or two passes"
DRAFTER_SUMMARY = "train a drafter of a text or image target"
EXPORT_SUMMARY = "write a run's drafter in the layout of vLLM or SGLang"
DRAFTER = """\
Train a drafter of a text or image target: it learns the target's distributions
on texts or images that the target made itself, and so is accepted more often.

Stages: the target completes prompts, or makes images (records), the drafter is
trained on them (train) and measured in the real loop on held-out prompts
(evaluate). The best state by exams is written to OUTPUT/export. A run that was
interrupted continues when the same command is run again.
"""
DRAFTER_EXAMPLE = """\
example: a draft model of the demo target, better than the one it starts from

  paceline distill drafter --target examples/models/text-target \
      --start examples/models/text-draft --prompts prompts.jsonl --output out/drafter

  paceline generate --target examples/models/text-target --drafter out/drafter/export \
      --input prompts.jsonl --output out/completions

example: a draft model of the digits model, which needs no prompts

  paceline distill drafter --target examples/models/digits-raster \
      --records 4000 --rate 1e-3 --output out/digits-drafter

docs/distill-drafter.md describes kinds, stages and figures.
"""
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
      --input examples/labels.jsonl --prompt-field label --output out/fast-digits

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
        summary=STUDENT_SUMMARY,
        about=STUDENT,
        example=STUDENT_EXAMPLE,
        line="records: 4000",
    )
    add_command(
        what,
        "drafter",
        DrafterOptions,
        run=run_drafter,
        usage="paceline distill drafter --target PATH [--prompts FILE] --output FOLDER [options]",
        summary=DRAFTER_SUMMARY,
        about=DRAFTER,
        example=DRAFTER_EXAMPLE,
        line="kind: medusa",
    )
    _add_export(what)


def _add_export(what: Subparsers) -> None:
    parser = what.add_parser("export", help=EXPORT_SUMMARY, description=EXPORT_SUMMARY)
    parser.add_argument("folder", metavar="RUN", help="folder of a run, local or s3://")
    told = "speculators: for vLLM; sglang: for SGLang; paceline: as it is"
    parser.add_argument("--format", required=True, choices=FORMATS, help=told)
    told = "folder to write, local or s3://; default: RUN/export-FORMAT"
    parser.add_argument("--output", metavar="FOLDER", help=told)
    told = "the drafter's target, if it is no longer where it was during the run"
    parser.add_argument("--target", metavar="PATH", help=told)
    parser.set_defaults(run=run_export)


def config_of(options: argparse.Namespace) -> StudentOptions | DrafterOptions:
    """The file's options of a training, and before them those of the command line.

    Raises InvalidOption: a value is wrong, or the command trains nothing.
    """
    if options.what == "student":
        return student_config(options)
    if options.what == "drafter":
        return drafter_config(options)
    raise InvalidOption("distill", options.what, "student or drafter")


def student_config(options: argparse.Namespace) -> StudentOptions:
    """The file's options, and before them those of the command line."""
    return from_mapping(StudentOptions, read_options(options, StudentOptions))


def run_student(options: argparse.Namespace) -> int:
    """Make the student and say where it is."""
    config = student_config(options)
    from pipelines.distill.students.student import distill

    distill(config)
    print(f"student    {exported(config)}")
    return 0


def drafter_config(options: argparse.Namespace) -> DrafterOptions:
    """The file's options, and before them those of the command line."""
    return from_mapping(DrafterOptions, read_options(options, DrafterOptions))


def run_drafter(options: argparse.Namespace) -> int:
    """Make the drafter and say where it is."""
    config = drafter_config(options)
    from pipelines.distill.drafters.drafter import distill

    distill(config)
    print(f"drafter    {exported(config)}")
    return 0


def exported(config: DistillConfig) -> str:
    """Where the trained model is."""
    return storage.join(storage.normalize(config.output), "export")


def run_export(options: argparse.Namespace) -> int:
    """Write the drafter and say where it is."""
    from pipelines.distill.drafters.export import ExportOptions, export

    config = ExportOptions(
        run=options.folder, format=options.format, output=options.output, target=options.target
    )
    print(f"drafter    {export(config)}")
    return 0

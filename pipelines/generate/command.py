"""`paceline generate` as a command: its options, a YAML file's and their order."""

import argparse
import sys
from typing import TYPE_CHECKING

from pipelines.flags import Subparsers, add_command, read_options
from pipelines.generate.config import GenerateConfig
from pipelines.generate.student import with_target
from pipelines.options import from_mapping

if TYPE_CHECKING:
    from pipelines.generate.reporting.summary import Summary

ABOUT = """\
Complete the prompts of a data set with a target model; or, with a target of
images, generate an image for each row's class.

A drafter may propose tokens for the target to check: that is faster and
changes no token. Rows depend on the target, the prompt, the sampling options
and the seed alone. A job that was interrupted continues when the same command
is run again.
"""
EXAMPLE = """\
example: complete prompts with a draft model

  paceline generate --target examples/models/text-target \\
      --drafter examples/models/text-draft \\
      --input examples/prompts.jsonl --output out/completions --max-tokens 64

  python -c "import pandas
  print(pandas.read_parquet('out/completions').completion[0])"

example: an image for each label, from rows such as {"label": 3}

  paceline generate --target examples/models/digits-raster \\
      --input examples/labels.jsonl --prompt-field label --output out/digits

Options can be in a file, --config job.yaml, with lines such as
`max_tokens: 64`; the command line overrides the file. docs/options.md
describes every option in full.

exit codes
  0    done; a warning counts the rows that failed
  1    the job stopped, or no row succeeded
  2    bad usage or input, or another run uses the output
  3    done, but rows failed for reasons that may pass: run it again
  130  interrupted (143: by SIGTERM); the same command continues the job
"""


def register(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    add_command(
        subparsers,
        "generate",
        GenerateConfig,
        run=run,
        usage="paceline generate --target PATH --input FILE_OR_FOLDER --output FOLDER [options]",
        summary="complete the prompts of a data set",
        about=ABOUT,
        example=EXAMPLE,
        line="max_tokens: 64",
    )


def config_of(options: argparse.Namespace) -> GenerateConfig:
    """The file's options, and before them those of the command line."""
    return from_mapping(GenerateConfig, with_target(read_options(options, GenerateConfig)))


def run(options: argparse.Namespace) -> int:
    """Run the job and print its figures."""
    config = config_of(options)
    from pipelines.generate.job import generate

    summary = generate(config)
    print("\n".join(summary.lines()))
    if summary.rows_failed:
        told = f"{summary.rows_failed} of {summary.rows} rows failed: see their column `error`"
        print(f"paceline: {told}. The first is row {summary.first_error}", file=sys.stderr)
    if summary.rows_without_room:
        told = f"{summary.rows_without_room} of these need more memory: run the same command again"
        print(f"paceline: {told} with the --memory that their errors name", file=sys.stderr)
    if _may_pass(summary):
        told = f"{_may_pass(summary)} of these may succeed: run the same command again"
        print(f"paceline: {told}", file=sys.stderr)
    return exit_code(summary)


def exit_code(summary: "Summary") -> int:
    """1: no row succeeded. 3: some failed for a reason that may pass. Otherwise 0."""
    if summary.rows_failed == summary.rows:
        return 1
    return 3 if _may_pass(summary) else 0


def _may_pass(summary: "Summary") -> int:
    """The rows that the same command may make."""
    return summary.rows_retryable - summary.rows_without_room

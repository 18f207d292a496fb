"""`paceline generate` as a command: its options, a YAML file's and their order."""

import argparse
import sys
from typing import TYPE_CHECKING

from pipelines.flags import add_flags, given, read_yaml
from pipelines.generate.config import GenerateConfig
from pipelines.generate.student import with_target
from pipelines.options import from_mapping

if TYPE_CHECKING:
    from pipelines.generate.summary import Summary

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

  paceline generate --target examples/models/digits-raster --input labels.jsonl \\
      --prompt-field label --output out/digits

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


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "generate",
        usage="paceline generate --target PATH --input FILE_OR_FOLDER --output FOLDER [options]",
        help="complete the prompts of a data set",
        description=ABOUT,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="read options from a YAML file (max_tokens: 64)"
    )
    add_flags(parser, GenerateConfig)
    parser.set_defaults(run=run)


def config_of(options: argparse.Namespace) -> GenerateConfig:
    """The file's options, and before them those of the command line."""
    values = read_yaml(options.config) if options.config else {}
    return from_mapping(GenerateConfig, with_target(values | given(options, GenerateConfig)))


def run(options: argparse.Namespace) -> int:
    """Run the job and print its figures."""
    config = config_of(options)
    from pipelines.generate.job import generate

    summary = generate(config)
    print("\n".join(summary.lines()))
    if summary.rows_failed:
        told = f"{summary.rows_failed} of {summary.rows} rows failed: see their column `error`"
        print(f"paceline: {told}", file=sys.stderr)
    if summary.rows_retryable:
        told = f"{summary.rows_retryable} of these may succeed: run the same command again"
        print(f"paceline: {told}", file=sys.stderr)
    return exit_code(summary)


def exit_code(summary: "Summary") -> int:
    """1: no row succeeded. 3: some failed for a reason that may pass. Otherwise 0."""
    if summary.rows_failed == summary.rows:
        return 1
    return 3 if summary.rows_retryable else 0

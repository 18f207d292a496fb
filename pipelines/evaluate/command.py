"""`paceline evaluate` as a command: are these samples the teacher's own?"""

import argparse

from pipelines.evaluate.config import EvaluateConfig
from pipelines.flags import Subparsers, add_command, read_options
from pipelines.options import from_mapping

ABOUT = """\
Compare samples with a reference: do they follow the same distribution as the
teacher's own samples, and if not, in what do they differ?

Each metric is reported with a 95 % interval beside its noise floor: the same
metric for other samples of the teacher (--floor, or a part of the reference).
p is the probability that samples and floor, shuffled, differ as much in any
metric; at 0.05 or less the samples are beyond the floor.
"""
EXAMPLE = """\
example: does a faster way of decoding give the same images?

  paceline generate --target examples/models/digits-raster \\
      --input examples/labels.jsonl --prompt-field label \\
      --output out/teacher --seed 1
  paceline generate --target examples/models/digits-raster \\
      --input examples/labels.jsonl --prompt-field label --decoder mc-sjd \\
      --output out/faster --seed 2
  paceline evaluate --samples out/faster --reference out/teacher \\
      --output out/evaluation

It prints a table and writes evaluation.json, evaluation.png and samples.png.
The classifier stays in out/evaluation/classifier; pass it to other
evaluations to make their figures comparable. Options can be in a file,
--config evaluation.yaml, with lines such as `metrics: [fd-clf, recall]`.
"""


def register(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    add_command(
        subparsers,
        "evaluate",
        EvaluateConfig,
        run=run,
        usage="paceline evaluate --samples FILE_OR_FOLDER --reference FILE_OR_FOLDER [options]",
        summary="compare samples with a reference, beside the noise floor",
        about=ABOUT,
        example=EXAMPLE,
        line="max_rows: 500",
    )


def config_of(options: argparse.Namespace) -> EvaluateConfig:
    """The file's options, and before them those of the command line."""
    return from_mapping(EvaluateConfig, read_options(options, EvaluateConfig))


def run(options: argparse.Namespace) -> int:
    """Run the evaluation and print its table."""
    config = config_of(options)
    from pipelines.evaluate.run import evaluate

    report = evaluate(config)
    print("\n".join(report.lines()))
    if config.output is not None:
        print(f"written to  {config.output}")
    return 0

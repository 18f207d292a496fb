"""The distillation demo: a student and a draft model, trained on a local Ray, and their reports.

First a student of the digits model: the target makes images to learn from, the student is trained
on them, and both are compared: a table before (independent sampling of all tokens) and after, and a
sheet of images of the teacher, of one and two passes, and of independent sampling, from the same
noise. Then the demo text model's draft model goes on learning from what the target writes after
prompts from Python's standard library: a table of accepted lengths before and after.
"""

import argparse
import sys
from pathlib import Path

from cluster.errors import ClusterError
from examples.library_prompts import write_prompts
from models.errors import PacelineError
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.drafter import distill as distill_drafter
from pipelines.distill.students.config import StudentOptions
from pipelines.distill.students.student import distill as distill_student
from pipelines.interruption import leave_if_interrupted, obey_signals

MODELS = Path(__file__).resolve().parent / "models"


def main() -> int:
    """0: the student and the draft model are made; 2: they could not be."""
    obey_signals()
    options = parse()
    try:
        student = distill_student(student_options(options))
        draft = distill_drafter(drafter_options(options))
    except (PacelineError, ClusterError) as error:
        leave_if_interrupted()
        print(f"demo-distill: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        leave_if_interrupted()
        raise
    print(f"sheet      {options.output / 'student' / 'evaluation' / 'samples.png'}")
    for name, made in (("student", student), ("drafter", draft)):
        print(f"{name:<10} {made}\nreport     {options.output / name / 'report.html'}")
    return 0


def student_options(options: argparse.Namespace) -> StudentOptions:
    """Of the digits model."""
    return StudentOptions(
        target=str(MODELS / "digits-raster"),
        output=str(options.output / "student"),
        classifier=str(MODELS / "digits-classifier"),
        records=options.records,
        train_steps=options.train_steps,
        eval_rows=options.rows,
        resume=options.resume,
    )


def drafter_options(options: argparse.Namespace) -> DrafterOptions:
    """Of the demo text model, from its draft model on."""
    prompts = options.output / "prompts.jsonl"
    write_prompts(prompts, options.texts)
    return DrafterOptions(
        target=str(MODELS / "text-target"),
        start=str(MODELS / "text-draft"),
        prompts=str(prompts),
        output=str(options.output / "drafter"),
        records=options.texts,
        train_steps=options.draft_steps,
        exam_every=max(1, options.draft_steps // 2),
        resume=options.resume,
    )


def parse() -> argparse.Namespace:
    """Sizes that take a quarter of an hour on two cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("out/demo-distill"))
    add("--records", type=int, default=4000, help="images that the student learns from")
    add("--train-steps", type=int, default=400, help="of the student")
    add("--rows", type=int, default=500, help="images of each way in the comparison")
    add("--texts", type=int, default=400, help="texts that the draft model learns from")
    add("--draft-steps", type=int, default=60, help="training steps of the draft model")
    add("--resume", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

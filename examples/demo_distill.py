"""The distillation demo: a student of the digits model, trained on a local Ray, and its report.

The target makes images to learn from, the student is trained on them, and both are compared: a
table before (independent sampling of all tokens) and after, and a sheet of images of the teacher,
of one and two passes, and of independent sampling, from the same noise.
"""

import argparse
import sys
from pathlib import Path

from cluster.errors import ClusterError
from models.errors import PacelineError
from pipelines.distill.students.config import StudentOptions
from pipelines.distill.students.student import distill
from pipelines.interruption import leave_if_interrupted, obey_signals

HERE = Path(__file__).resolve().parent


def main() -> int:
    """0: the student is made; 2: it could not be."""
    obey_signals()
    options = parse()
    output = Path(options.output)
    try:
        export = distill(
            StudentOptions(
                target=str(HERE / "models" / "digits-raster"),
                output=str(output),
                classifier=str(HERE / "models" / "digits-classifier"),
                records=options.records,
                train_steps=options.train_steps,
                eval_rows=options.rows,
                resume=options.resume,
            )
        )
    except (PacelineError, ClusterError) as error:
        leave_if_interrupted()
        print(f"demo-distill: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        leave_if_interrupted()
        raise
    print(f"sheet      {output / 'evaluation' / 'samples.png'}")
    print(f"student    {export}")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--output", default="out/demo-distill")
    add("--records", type=int, default=4000)
    add("--train-steps", type=int, default=400)
    add("--rows", type=int, default=500, help="images of each way in the comparison")
    add("--resume", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""The images demo: the same labels decoded each way on a local Ray, two tables, a contact sheet.

digits-raster sequentially, with a Jacobi window, by SJD and MC-SJD; digits-scale map by map. The
ways take turns, several times, so that a slow minute of the machine slows all of them; the first
table shows medians. The second holds each way's images of the last turn against the target's own
samples from another seed; its first line, sequential decoding, is the noise floor. The rows are in
out/demo-images/ as Parquet, a folder each. The exit code is 1 if Jacobi's grids are not the
sequential ones: they must be.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.connect import connected
from cluster.errors import ClusterError
from examples.demo import contestants, same, say, spread
from models.errors import PacelineError
from models.metrics.images.digits import load_digits
from pipelines.bench.interleave import Series, collect
from pipelines.bench.machine import this_machine
from pipelines.bench.table import markdown
from pipelines.evaluate.quality import Quality, qualities
from pipelines.evaluate.report import number
from pipelines.generate.config import GenerateConfig
from pipelines.generate.job import generate
from pipelines.generate.reporting.summary import Summary
from pipelines.interruption import leave_if_interrupted, obey_signals
from pipelines.options import from_mapping
from pipelines.output.contact_sheet import first_pictures, sheet

HERE = Path(__file__).resolve().parent
LOGICAL_CPUS = 4  # of the private cluster: a target, and what reads and writes
CLASSES, COLUMNS = 10, 20
METRICS = ("fd-clf", "fd-pixel", "kd-clf")
REAL = ("accuracy", "fd-clf, real")
SEQUENTIAL, SCALE = "sequential", "next-scale"
SPEED = ("way", "images/s", "speed-up", "all turns", "passes per image", "exactness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How images are made."""

    name: str
    target: str
    decoder: str = SEQUENTIAL
    seed: int = 0
    shown: bool = True


def ways(options: argparse.Namespace) -> list[Way]:
    """The first is the floor, the one that is not shown the reference."""
    decoders = (SEQUENTIAL, "jacobi", "sjd", "mc-sjd")
    raster = [Way(name=name, target=options.raster, decoder=name) for name in decoders]
    other = Way(name="another seed", target=options.raster, seed=1, shown=False)
    return [*raster, Way(name=SCALE, target=options.scale), other]


def main() -> int:
    """0: the grids that must be the same are; 1: they are not; 2: it could not run."""
    obey_signals()
    try:
        return demo(parse())
    except (PacelineError, ClusterError) as error:
        leave_if_interrupted()
        print(f"demo-images: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        leave_if_interrupted()
        raise


def demo(options: argparse.Namespace) -> int:
    output = Path(options.output)
    labels, real = write_labels(output, options.images), write_digits(output)
    *shown, other = ways(options)
    configs = {way.name: configuration(options, way, labels) for way in shown}
    summaries: dict[str, Summary] = {}
    with connected(min_cpus=LOGICAL_CPUS):
        series = collect(contestants(configs, summaries), options.turns, say)
        generate(configuration(options, other, labels))
    print(f"\n{options.raster}, {options.scale} on {this_machine().line()}\n")
    print(f"Medians of {options.turns} interleaved turns.\n")
    print(markdown(SPEED, [speed(name, series, summaries[name]) for name in series]))
    quality = judged(options, real)
    print("\nLikeness to the target's own images from another seed, and to real digits.\n")
    heads = ["way", *METRICS, *REAL]
    print(markdown(heads, [[name, *quality[name]] for name in series]))
    draw(output, shown)
    return verdict(series, output)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--raster", default=str(HERE / "models/digits-raster"))
    add("--scale", default=str(HERE / "models/digits-scale"))
    add("--classifier", default=str(HERE / "models/digits-classifier"))
    add("--output", default="out/demo-images")
    add("--images", type=int, default=160, help="of each way; each digit as often")
    add("--window", type=int, default=16)
    add("--guidance", type=float, default=None)
    add("--batch-size", type=int, default=8)
    add("--threads", type=int, default=None)
    add("--turns", type=int, default=3)
    return parser.parse_args()


def write_labels(output: Path, count: int) -> str:
    output.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"id": i, "label": i % CLASSES}) for i in range(count)]
    (output / "labels.jsonl").write_text("\n".join(rows) + "\n")
    return str(output / "labels.jsonl")


def write_digits(output: Path) -> str:
    """The real digits that the raster model's classifier was not trained on."""
    held = load_digits()[1]
    np.savez(output / "digits.npz", images=held.images[:, 0].numpy(), labels=held.classes.numpy())
    return str(output / "digits.npz")


def configuration(options: argparse.Namespace, way: Way, labels: str) -> GenerateConfig:
    """The same labels and seeds for every way; an output of an earlier demo is written anew."""
    return from_mapping(
        GenerateConfig,
        {
            "target": way.target,
            "input": labels,
            "output": folder(options.output, way),
            "prompt_field": "label",
            "decoder": way.decoder,
            "window": None if way.decoder == SEQUENTIAL else options.window,
            "guidance": options.guidance,
            "seed": way.seed,
            "batch_size": options.batch_size,
            "threads": options.threads,
            "resume": False,
            "progress": False,
        },
    )


def folder(output: str | Path, way: Way) -> str:
    return str(Path(output) / way.name.replace(" ", "-"))


def judged(options: argparse.Namespace, real: str) -> dict[str, list[str]]:
    """Each way's quality cells: against the target's own samples, against real digits."""
    *every, other = ways(options)
    folders = {way.name: folder(options.output, way) for way in every}
    own = {way.name: folders[way.name] for way in every if way.target == other.target}
    reference = folder(options.output, other)
    given = {"classifier": options.classifier}
    likeness = qualities(own, reference, metrics=METRICS, **given)
    likeness[SCALE] = Quality(values={})  # another model: no sample of this one
    reality = qualities(folders, real, metrics=("fd-clf", "accuracy"), **given)
    return {
        name: [
            *likeness[name].cells(METRICS),
            number(reality[name].values["accuracy"]),
            number(reality[name].values["fd-clf"]),
        ]
        for name in folders
    }


def speed(name: str, series: Mapping[str, Series], summary: Summary) -> list[str]:
    """One way's cells; a speed-up is one of images per second, the median of the turns."""
    found, plain = series[name], series[SEQUENTIAL]
    seconds = sorted(run.seconds for run in found.runs)[(len(found.runs) - 1) // 2]
    return [
        name,
        f"{len(found.outputs) / seconds:.3g}",
        f"{statistics.median(ratios(found, plain)):.2f}×",
        spread(ratios(found, plain)),
        f"{summary.passes_per_image:.1f}",
        summary.exactness,
    ]


def ratios(found: Series, plain: Series) -> list[float]:
    """Of images per second, turn by turn: all ways make as many."""
    return [b.seconds / a.seconds for a, b in zip(found.runs, plain.runs, strict=True)]


def draw(output: Path, shown: Sequence[Way]) -> None:
    """A row of images per way, of the same labels and seeds."""
    titles = [f"{way.name} ({Path(way.target).name})" for way in shown]
    lines = []
    for way in shown:
        url = folder(output, way)
        parts = [str(path) for path in sorted(Path(url).glob("part-*.parquet"))]
        lines.append(first_pictures(parts, url, "image", count=COLUMNS))
    (output / "contact-sheet.png").write_bytes(sheet(lines, titles))


def verdict(series: Mapping[str, Series], output: Path) -> int:
    """Say whether Jacobi's grids are the sequential ones; the exit code."""
    print(f"\nThe images are in {output}, a folder each, and side by side in contact-sheet.png.")
    print("sequential is the noise floor: itself from another seed. p marks a figure beyond it.")
    equal = same(series["jacobi"], series[SEQUENTIAL])
    told = f"{equal.count(True)} of {len(equal)} grids"
    if not all(equal):
        print(f"DIFFERENT: only {told} of jacobi are those of sequential decoding")
        return 1
    print(f"Jacobi's grids are the sequential ones: {told}, all turns together.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

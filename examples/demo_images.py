"""The images demo: the same labels decoded each way on a local Ray, one table, one contact sheet.

digits-raster sequentially, with a Jacobi window, by SJD and MC-SJD; digits-scale map by map. The
rows go to out/demo-images/ as Parquet, a folder each. The quality columns hold each way against the
target's own samples from another seed; the first line, sequential decoding, is the noise floor. The
exit code is 1 if Jacobi's grids are not the sequential ones: they must be.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.connect import connected
from cluster.errors import ClusterError
from examples.demo import read_tokens
from models.errors import PacelineError
from models.metrics.digits import load_digits
from pipelines.config import GenerateConfig
from pipelines.contact_sheet import first_pictures, sheet
from pipelines.evaluation.report import number
from pipelines.generate import generate
from pipelines.machine import this_machine
from pipelines.measurement import Measurement
from pipelines.options import from_mapping
from pipelines.quality import Quality, qualities
from pipelines.summary import Summary
from pipelines.table import HEADS, cells, markdown

HERE = Path(__file__).resolve().parent
LOGICAL_CPUS = 4  # of the private cluster: a target, and what reads and writes
CLASSES, COLUMNS = 10, 20
METRICS = ("fd-clf", "fd-pixel", "kd-clf")
REAL = ("accuracy", "fd-clf to real digits")
SEQUENTIAL, SCALE = "sequential", "next-scale"


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
    try:
        return demo(parse())
    except (PacelineError, ClusterError) as error:
        print(f"demo-images: {error}", file=sys.stderr)
        return 2


def demo(options: argparse.Namespace) -> int:
    output = Path(options.output)
    labels, real = write_labels(output, options.images), write_digits(output)
    summaries, tokens = {}, {}
    with connected(min_cpus=LOGICAL_CPUS):
        for way in ways(options):
            print(f"{way.name}:", file=sys.stderr)
            config = configuration(options, way, labels)
            summaries[way.name] = generate(config)
            tokens[way.name] = read_tokens(config.output)
    quality = judged(options, real)
    shown = [way for way in ways(options) if way.shown]
    lines = [measured(way, summaries, tokens, options.batch_size) for way in shown]
    print(f"\n{options.raster}, {options.scale} on {this_machine().line()}\n")
    print(table(lines, summaries, quality))
    draw(output, shown)
    return verdict(lines, output)


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


def measured(
    way: Way,
    summaries: Mapping[str, Summary],
    tokens: Mapping[str, dict[str, list[int]]],
    batch_size: int,
) -> Measurement:
    """One way as a line of the table, compared with sequential decoding of the same target."""
    found, plain = summaries[way.name], summaries[SEQUENTIAL]
    identical = found.exactness == "identical" and way.name != SCALE
    compared = tokens[SEQUENTIAL] if identical else {}
    same = sum(tokens[way.name].get(key) == row for key, row in compared.items())
    return Measurement(
        name=way.name,
        batch_size=batch_size,
        tokens_per_second=found.tokens_per_second,
        speed_up=images_per_second(found) / images_per_second(plain),
        accepted_length=found.accepted_length,
        round_ms=found.round_ms,
        target_passes=found.target_passes,
        draft_passes=found.draft_passes,
        exactness=found.exactness,
        same=same if compared else None,
        compared=len(compared),
        tokens=found.tokens,
        seconds=found.seconds,
    )


def images_per_second(summary: Summary) -> float:
    return (summary.images or 0) / summary.seconds


def table(
    lines: Sequence[Measurement],
    summaries: Mapping[str, Summary],
    quality: Mapping[str, list[str]],
) -> str:
    """One row per way; a speed-up is one of images per second."""
    heads = [*HEADS, "passes/image", *METRICS, *REAL]
    rows = [
        [*cells(line), f"{summaries[line.name].passes_per_image:.1f}", *quality[line.name]]
        for line in lines
    ]
    return markdown(heads, rows)


def draw(output: Path, shown: Sequence[Way]) -> None:
    """A row of images per way, of the same labels and seeds."""
    titles = [f"{way.name} ({Path(way.target).name})" for way in shown]
    lines = []
    for way in shown:
        url = folder(output, way)
        parts = [str(path) for path in sorted(Path(url).glob("part-*.parquet"))]
        lines.append(first_pictures(parts, url, "image", count=COLUMNS))
    (output / "contact-sheet.png").write_bytes(sheet(lines, titles))


def verdict(lines: Sequence[Measurement], output: Path) -> int:
    """Say whether Jacobi's grids are the sequential ones; the exit code."""
    print(f"\nThe images are in {output}, a folder each, and side by side in contact-sheet.png.")
    print(
        "The first line is the noise floor: sequential decoding against itself from another seed. "
        "A p marks a figure beyond it."
    )
    jacobi = next(line for line in lines if line.name == "jacobi")
    told = f"{jacobi.same} of {jacobi.compared} grids"
    if jacobi.same != jacobi.compared:
        print(f"DIFFERENT: only {told} of jacobi are those of sequential decoding")
        return 1
    print(f"Jacobi's grids are the sequential ones: {told}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

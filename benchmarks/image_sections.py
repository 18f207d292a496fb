"""The image benchmark's sections: decoders and windows at a batch size, the next-scale target."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.image_work import (
    SEQUENTIAL,
    Way,
    about,
    contestant,
    grid,
    requests,
    save_pictures,
)
from benchmarks.section import Goal, Section, made_of
from benchmarks.work import compete
from models.engine import build_loop
from pipelines.bench.interleave import Series, run_loop
from pipelines.bench.measurement import PARTS, Measurement, measurement
from pipelines.bench.table import UNKNOWN, same_tokens
from pipelines.evaluate.quality import Quality, qualities
from pipelines.evaluate.report import is_beyond

PASSES_GOAL = 2.0
REFERENCE_SEED = 1_000_003
METRICS = ("fd-clf", "fd-pixel", "kd-clf", "accuracy", "token-tv")
HEADS = (
    "way, window",
    "passes/image",
    "fewer",
    "images/s",
    "speed-up",
    "round ms",
    *PARTS,
    "exactness",
    "same grids",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWork:
    """What to run. `counts`: images in a turn, by batch size."""

    raster: str
    scale: str
    classifier: str
    windows: tuple[int, ...]
    counts: Mapping[int, int]
    turns: int
    references: int
    guidance: float
    threads: int


def decoders(plan: ImageWork, *, batch_size: int, guidance: float) -> Section:
    """All decoders and windows at one batch size; quality at the largest."""
    told = "" if guidance == 1.0 else f", guidance {guidance:g}"
    section = Section(
        name=f"{'batch' if guidance == 1.0 else 'guided'}-{batch_size}",
        title=f"Batch {batch_size}{told}",
    )
    found = grid(plan.raster, plan.windows, guidance=guidance)
    series = raced(plan, found, batch_size)
    lines = measured(found, series, batch_size)
    judged: Mapping[str, Quality] = {}
    if batch_size == max(plan.counts):
        judged = quality(plan, found, series)
        section.goals.append(passes_goal(lines, judged, told))
    put(section, f"batch {batch_size}{told}", lines, judged, about(plan.raster).num_tokens)
    return section


def scales(plan: ImageWork) -> Section:
    """The next-scale target beside the raster target, decoded sequentially and by MC-SJD."""
    section = Section(name="scale", title="The next-scale target")
    section.notes.append(
        "This is another model of the same images, so its images are not samples from the raster "
        "target's distribution. Speed-ups compare images per second with the raster target's "
        "sequential decoding."
    )
    window = plan.windows[len(plan.windows) // 2]
    raster = [way for way in grid(plan.raster, [window]) if way.drafter in ("none", "mc-sjd")]
    found = [*raster, Way(target=plan.scale, name="next-scale")]
    for batch_size in plan.counts:
        series = raced(plan, found, batch_size)
        lines = measured(found, series, batch_size)
        before = passes(lines[0], about(plan.raster).num_tokens)
        rows = [
            row(line, about(way.target).num_tokens, before)
            for way, line in zip(found, lines, strict=True)
        ]
        section.put(f"batch {batch_size}", HEADS, rows)
        section.measurements += lines
    return section


def raced(plan: ImageWork, found: Sequence[Way], batch_size: int) -> dict[str, Series]:
    count = plan.counts[batch_size]
    contestants = {
        way.name: contestant(way, batch_size=batch_size, count=count, threads=plan.threads)
        for way in found
    }
    return compete(f"batch {batch_size}", contestants, plan.turns, threads=plan.threads)


def measured(
    found: Sequence[Way], series: Mapping[str, Series], batch_size: int
) -> list[Measurement]:
    """One line for each way; speed-ups compare images per second."""
    plain = series[found[0].name]
    size = about(found[0].target).num_tokens
    lines = []
    for way in found:
        own = series[way.name]
        same_law = own.middle.exactness == "identical" and way.target == found[0].target
        line = measurement(
            way.name,
            own,
            plain,
            batch_size=batch_size,
            reference=plain.outputs if same_law else None,
            whole=True,
        )
        share = size / about(way.target).num_tokens
        lines.append(replace(line, speed_up=line.speed_up * share))
    return lines


def quality(
    plan: ImageWork, found: Sequence[Way], series: Mapping[str, Series]
) -> dict[str, Quality]:
    """Compare each way's images of all turns with sequential ones from other seeds."""
    plain = found[0]
    loop = build_loop(plain.engine(batch_size=max(plan.counts), threads=plan.threads))
    asked = requests(plan.raster, plan.references, turn=0, seed=REFERENCE_SEED)
    outputs = run_loop(loop, asked).outputs
    with tempfile.TemporaryDirectory() as folder:
        reference = save_pictures(outputs, plan.raster, Path(folder) / "reference.npz")
        samples = {
            way.name: save_pictures(
                series[way.name].outputs, plan.raster, Path(folder) / f"{i}.npz"
            )
            for i, way in enumerate(found)
        }
        return qualities(samples, reference, metrics=METRICS, classifier=plan.classifier)


def put(
    section: Section,
    caption: str,
    lines: Sequence[Measurement],
    judged: Mapping[str, Quality],
    num_tokens: int,
) -> None:
    """The table, quality in its last columns if it was measured."""
    heads, before = [*HEADS, *(METRICS if judged else ())], passes(lines[0], num_tokens)
    rows = []
    for line in lines:
        cells = judged[line.name].cells(METRICS) if judged else []
        rows.append([*row(line, num_tokens, before), *cells])
    section.put(caption, heads, rows)
    section.measurements += lines


def passes(line: Measurement, num_tokens: int) -> float:
    """Target passes that an image of `num_tokens` takes."""
    assert line.accepted_length  # our own loops tell it
    return num_tokens / line.accepted_length


def row(line: Measurement, num_tokens: int, before: float) -> list[str]:
    """A line's cells under HEADS; `before`: the passes of sequential decoding."""
    assert line.round_ms is not None
    mine = passes(line, num_tokens)
    return [
        line.name,
        f"{mine:.1f}",
        f"{before / mine:.2f}×",
        f"{line.tokens_per_second / num_tokens:.1f}",
        f"{line.speed_up:.2f}×",
        *(f"{line.round_ms[part]:.2f}" for part in ("round", *PARTS)),
        line.exactness or UNKNOWN,
        same_tokens(line),
    ]


def passes_goal(lines: Sequence[Measurement], judged: Mapping[str, Quality], told: str) -> Goal:
    """The goal for MC-SJD's passes, with the parts of its wall-clock time."""
    plain = lines[0]
    best = max(
        (line for line in lines if line.name.startswith("mc-sjd")),
        key=lambda line: line.accepted_length or 0.0,
    )
    beyond = [name for name, found in judged[best.name].outcomes.items() if is_beyond(found)]
    at = f"beyond the floor in {', '.join(beyond)}" if beyond else "at the quality floor"
    ratio = (best.accepted_length or 0.0) / (plain.accepted_length or 1.0)
    return Goal(
        text=f"{best.name}: fewer target passes than {SEQUENTIAL}, {at}{told}",
        goal=PASSES_GOAL,
        measured=ratio,
        why=made_of(best, plain),
    )

"""`make bench-images`: ways of decoding images, their passes, time and quality.

Run from the repository's root: python -m benchmarks.images [--quick] [--only batch-64 ...]
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.image_plot import draw
from benchmarks.image_sections import ImageWork, decoders, scales
from benchmarks.report import Page
from benchmarks.section import Section

NAMES = ("batch-1", "batch-8", "batch-64", "guided-64", "guided-1", "scale")
HEAD = """\
# Benchmarks: images

This page compares ways of decoding images on the digits targets in `examples/models`: a raster
target with 64 tokens for each image, and a next-scale target with six maps (digits-scale).

The token loops run in turn in one process: in each turn every decoder generates images of the same
labels with the same seeds, and the next turn uses other seeds. The values are medians over the
turns. A ratio is the median of the ratios of the turns. `passes/image` counts forward passes of the
target, and `fewer` says how many times fewer these are than with sequential decoding. With
guidance, a pass scores each position twice.

**Quality.** The images of all turns are compared with the target's own sequential samples from
other seeds. The line of sequential decoding is the noise floor. `(p ...)` marks a metric beyond the
floor, at a level of 5 % for all metrics of a line together. The tokens of a request do not depend
on the batch, so quality is measured at the largest batch only. fd-clf is not FID: see
[evaluation.md](evaluation.md).

**Limits.** Fewer passes save time only if a pass over a window costs about as much as a pass over
one position. This is not the case here, even at batch 1: a pass of this small target takes 0.2 ms
over one position and four times as long over 17, and updating the windows takes longer than a pass.
At batch 64 the CPU's arithmetic is saturated, and `score` grows faster than the number of passes
falls. Larger targets, and devices on which a pass is bound by reading the weights, are not measured
here. More than 16 draft tokens gain little, because those far ahead are sampled in a context that
is wrong by the time they are verified.

![Passes and images per second](benchmarks-images.png)"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    plan, output = plan_of(options), Path(options.output)
    torch.set_num_threads(plan.threads)
    page = Page(name="benchmarks-images", head=HEAD, sections=sections(plan))
    command = report.command_line("benchmarks.images", arguments)
    report.publish(page, options.only or NAMES, output, command=command)
    measured = {part["name"]: part["measurements"] for part in report.saved(page, output)}
    (output / f"{page.name}.png").write_bytes(draw(measured))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--raster", default="examples/models/digits-raster")
    add("--scale", default="examples/models/digits-scale")
    add("--classifier", default="examples/models/digits-classifier")
    add("--only", nargs="+", metavar="SECTION", help=f"of {', '.join(NAMES)}", choices=NAMES)
    add("--quick", action="store_true", help="a minute: fewer images, one window, two turns")
    add("--guidance", type=float, default=2.0, help="of the guided section")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--output", help="folder for the page, its plot and data (default: docs, quick out)")
    return parser.parse_args(arguments)


def plan_of(options: argparse.Namespace) -> ImageWork:
    quick = options.quick
    options.output = options.output or ("out" if quick else "docs")
    return ImageWork(
        raster=options.raster,
        scale=options.scale,
        classifier=options.classifier,
        windows=(16,) if quick else (8, 16, 32),
        counts={1: 2, 8: 16, 64: 64} if quick else {1: 6, 8: 32, 64: 64},
        turns=2 if quick else 4,
        references=200 if quick else 768,
        guidance=options.guidance,
        threads=options.threads,
    )


def sections(plan: ImageWork) -> dict[str, Callable[[], Section]]:
    """By name, in the page's order."""
    plain = partial(decoders, plan, guidance=1.0)
    guided = partial(decoders, plan, guidance=plan.guidance)
    every = [
        *(partial(plain, batch_size=size) for size in plan.counts),
        partial(guided, batch_size=max(plan.counts)),
        partial(guided, batch_size=min(plan.counts)),
        partial(scales, plan),
    ]
    return dict(zip(NAMES, every, strict=True))


if __name__ == "__main__":
    sys.exit(main())

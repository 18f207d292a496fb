"""`make bench`: text generation against transformers and against ourselves.

Run from the repository's root: python -m benchmarks.text [--quick] [--only plain draft ...]
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import ablation, alone, ray_job, real, report, versus
from benchmarks.section import Section
from benchmarks.work import Work
from pipelines.generate.prompts import Prompt, read_prompts

SECTIONS: dict[str, Callable[[Work], Section]] = {
    "plain": versus.plain,
    "draft": versus.draft,
    "lookup": versus.lookup,
    "batch": alone.batch,
    "useless": alone.useless,
    "overhead": alone.overhead,
    "ablation": ablation.ablation,
    "pipeline": ray_job.pipeline,
    "real": real.real,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    reason = real.missing()
    if reason is not None and "real" in options.only:
        print(f"SKIPPED section real: {reason}", file=sys.stderr)
        options.only = [name for name in options.only if name != "real"]
        if not options.only:
            return 2
    work, output = work_of(options), Path(options.output)
    torch.set_num_threads(work.threads)
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "benchmarks.text", *given])
    data, page = output / "benchmarks-data", output / "benchmarks.md"
    for name in options.only:
        report.measure(partial(SECTIONS[name], work), data, command=command)
        report.compose(data, page)
    print(f"written to {page} and {data}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--target", default="examples/models/text-target")
    add("--draft", default="examples/models/text-draft")
    add("--input", default="examples/prompts.jsonl", help="prompts, as `paceline generate` reads")
    add("--only", nargs="+", choices=tuple(SECTIONS), default=tuple(SECTIONS), metavar="SECTION")
    add("--quick", action="store_true", help="a minute or two: fewer and shorter, float32 only")
    add("--prompts", type=int, help="how many (default: 24, quick 4)")
    add("--turns", type=int, help="slices that the prompts are cut into (default: 4, quick 2)")
    add("--max-tokens", type=int, help="of every completion (default: 64, quick 24)")
    add("--dtypes", nargs="+", choices=("float32", "bfloat16"), help="default: both, quick float32")
    add("--temperatures", nargs="+", type=float, default=(0.0, 1.0))
    add("--chain", type=int, default=4, metavar="TOKENS", help="size of the fixed chain")
    add("--tree", type=int, nargs=3, default=(4, 2, 5), metavar=("TOKENS", "WIDTH", "NODES"))
    add("--threads", type=int, default=torch.get_num_threads())
    add("--job-seconds", type=float, help="of the Ray job (default: 60, quick 10)")
    add("--openvino", nargs=2, metavar=("TARGET", "DRAFT"), help="in openvino's own format")
    add("--real-openvino", metavar="FOLDER", help="the real model in openvino's own format")
    add("--output", help="folder for benchmarks.md and its data (default: docs, quick out)")
    options = parser.parse_args(arguments)
    defaults = QUICK if options.quick else FULL
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


FULL = {
    "prompts": 24,
    "turns": 4,
    "max_tokens": 64,
    "dtypes": ("float32", "bfloat16"),
    "job_seconds": 60.0,
    "output": "docs",
}
QUICK = {
    "prompts": 4,
    "turns": 2,
    "max_tokens": 24,
    "dtypes": ("float32",),
    "job_seconds": 10.0,
    "output": "out",
}


def work_of(options: argparse.Namespace) -> Work:
    """The options as the sections need them; prompts are cut to 256 tokens."""
    prompts = read_prompts(options.input, checkpoint=options.target, count=options.prompts)
    turns = min(options.turns, len(prompts))
    return Work(
        target=options.target,
        draft=options.draft,
        slices=tuple(tuple(map(_cut, prompts[i::turns])) for i in range(turns)),
        max_tokens=options.max_tokens,
        threads=options.threads,
        job_s=options.job_seconds,
        dtypes=tuple(options.dtypes),
        temperatures=tuple(options.temperatures),
        chain=options.chain,
        tree=tuple(options.tree),
        openvino=None if options.openvino is None else tuple(options.openvino),
        real_openvino=options.real_openvino and (options.real_openvino,) * 2,
    )


def _cut(prompt: Prompt) -> Prompt:
    return Prompt(id=prompt.id, tokens=prompt.tokens[-256:])


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: text generation against transformers and against ourselves.

Run from the repository's root: python -m benchmarks.text [--quick] [--only plain draft ...]
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import ablation, alone, long_prompt, ray_job, real, report, versus
from benchmarks.report import Page
from benchmarks.section import Section
from benchmarks.work import Work
from pipelines.generate.rows.prompts import Prompt, read_prompts

SECTIONS: dict[str, Callable[[Work], Section]] = {
    "plain": versus.plain,
    "draft": versus.draft,
    "lookup": versus.lookup,
    "batch": alone.batch,
    "useless": alone.useless,
    "overhead": alone.overhead,
    "ablation": ablation.ablation,
    "long": long_prompt.long_prompts,
    "pipeline": ray_job.pipeline,
    "real": real.real,
}

HEAD = """\
# Benchmarks: text

This page compares Paceline with transformers, openvino-genai and llama.cpp, and with its own plain
decoding. [idea.md](idea.md) explains the terms.

All contestants use the same weights, dtype and number of threads, and generate the same number of
tokens. They run in turn in one process: in each turn every contestant completes the same prompts,
and the next turn uses other prompts. The values are medians over the turns. A ratio is the median
of the ratios of the turns.

| column | meaning |
| --- | --- |
| tokens/s | generated tokens per second, prefill included |
| speed-up | over Paceline's plain decoding in the same table |
| round ms, and its parts draft to other | milliseconds for each round, prefill not included |
| target passes, draft passes | forward passes of the target model and the draft model |
| same tokens | completions with the tokens of plain decoding; – where they cannot be compared |

The column `made of` explains a goal. "3.28 plain rounds' tokens at the cost of 2.35" means that a
round yields 3.28 times the tokens of a plain round and takes 2.35 times as long. The parts that
follow are in units of a plain round.

The demo checkpoints contain bfloat16 values. Paceline stores them in bfloat16 in float32 runs too,
because this gives the same results and halves the memory traffic. A checkpoint with other float32
values is stored in float32, and reading it takes twice the time."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    reason = real.missing()
    if reason is not None and "real" in options.only:
        print(f"SKIPPED section real: {reason}", file=sys.stderr)
        options.only = [name for name in options.only if name != "real"]
        if not options.only:
            return 2
    work = work_of(options)
    torch.set_num_threads(work.threads)
    page = page_of(work)
    command = report.command_line("benchmarks.text", arguments)
    report.publish(page, options.only, Path(options.output), command=command)
    return 0


def page_of(work: Work) -> Page:
    """The page and its sections."""
    every = {name: partial(section, work) for name, section in SECTIONS.items()}
    return Page(name="benchmarks", head=HEAD, sections=every)


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
    add("--long-prompts", type=int, nargs="+", help="tokens (default: 25000 50000 100000)")
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
    "long_prompts": (25_000, 50_000, 100_000),
    "output": "docs",
}
QUICK = {
    "prompts": 4,
    "turns": 2,
    "max_tokens": 24,
    "dtypes": ("float32",),
    "job_seconds": 10.0,
    "long_prompts": (2_000, 4_000),
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
        long_prompts=tuple(options.long_prompts),
        openvino=None if options.openvino is None else tuple(options.openvino),
        real_openvino=options.real_openvino and (options.real_openvino,) * 2,
    )


def _cut(prompt: Prompt) -> Prompt:
    return Prompt(id=prompt.id, tokens=prompt.tokens[-256:])


if __name__ == "__main__":
    sys.exit(main())

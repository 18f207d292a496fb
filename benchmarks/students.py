"""Students beside their target and beside cheaper ways: quality, passes and CPU time.

Run from the repository's root: python -m benchmarks.students [--rows N] [STUDENT ...]

The target's own images give the floor. The cheaper ways are independent sampling of all tokens
from the frequencies of their class and place, and the target's decoding whose last k tokens are
sampled in this way. With `--mixed A:B`, the target decodes these tokens of a student's image anew.
Then the students as drafters of the target, beside Jacobi decoding. Next-scale targets decide whole
maps: for them there are no last k tokens and no drafters. Times are of the process's CPU, on one
thread.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.image_work import about, requests, save_tokens
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.loop.token_loop import TokenLoop
from models.registry import FLOW, GUMBEL
from models.requests.request import Request, Sampling
from models.sampling.flow import FlowMap
from models.students.checkpoint import load_student
from models.students.mixed import Mixed
from models.students.networks.raster import Student
from models.students.sample import first_guesses, image_noise
from models.students.start import frozen
from pipelines.bench.table import markdown
from pipelines.distill.students.judge import TEACHER, judge
from pipelines.distill.students.samples import BATCH, INDEPENDENT, ways_of
from pipelines.inputs.seeds import row_seed

HELD_OUT, PREFIXES, NOISE = 1_000_003, 1_000_005, 1_000_007  # seeds
WINDOW = 16  # of Jacobi decoding
BATCHES = (1, 64)
Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print tables."""
    options = parse(arguments)
    torch.set_num_threads(1)
    students = {Path(folder).name: folder for folder in options.students}
    with tempfile.TemporaryDirectory() as folder:
        found = compared(options, students, Path(folder))
    print("\n".join(found.lines()), flush=True)
    lines = list[dict[str, Any]]()
    if options.drafts:
        lines = drafted(options.target, students, options.drafts)
        heads = tuple(lines[0])
        print(markdown(heads, [[str(line[head]) for head in heads] for line in lines]))
    if options.output:
        told = {"rows": options.rows, **found.as_dict(), "drafters": lines}
        Path(options.output).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("students", nargs="*", help="default: the target's shipped student, TARGET-student")
    add("--target", default="examples/models/digits-raster")
    add("--classifier", default="examples/models/digits-classifier")
    add("--rows", type=int, default=2000, help="images of each way")
    add("--steps", type=int, nargs="+", default=[1, 2], help="passes of the students")
    add("--mixed", nargs="*", default=[], metavar="A:B", help="ranges of tokens for the target")
    add("--last", type=int, nargs="*", help="tokens sampled independently; default: 32 48")
    add("--drafts", type=int, help="images decoded with each drafter; 0: none; default: 64")
    add("--output", help="file for the figures as JSON")
    given = parser.parse_args(arguments)
    given.students = given.students or [f"{given.target}-student"]
    in_order = about(given.target).in_order
    if not in_order and (given.last or given.drafts):
        parser.error(f"--last and --drafts: {given.target} decides whole maps, not single tokens")
    given.last = ([32, 48] if in_order else []) if given.last is None else given.last
    given.drafts = (64 if in_order else 0) if given.drafts is None else given.drafts
    return given


def compared(options: argparse.Namespace, students: Mapping[str, str], folder: Path) -> Any:
    """Every way's images beside the target's."""
    target, rows = options.target, options.rows
    size = about(target)
    held = decoded(target, size.num_tokens, 2 * rows, seed=HELD_OUT)
    labels = torch.arange(2 * rows) % size.num_classes
    reference = save_tokens(held, labels.tolist(), target, folder / "held-out.npz")
    files, times = dict[str, Path](), dict[str, dict[str, float]]()
    passes = dict[str, int]()
    seeds = np.array([row_seed(NOISE, str(row), 0) for row in range(rows)])

    def add(name: str, count: int, tokens: torch.Tensor, taken: dict[str, float]) -> None:
        file = folder / f"{name.replace(' ', '-')}.npz"
        files[name] = Path(save_tokens(tokens, labels[:rows].tolist(), target, file))
        times[name], passes[name] = taken, count

    first = None
    for label, path in students.items():
        student = frozen(load_student(path))
        noise = image_noise(seeds, size.num_tokens, student.config.code_width)
        ways = ways_of(student, options.steps)
        independent = ways.pop(INDEPENDENT)
        if first is None:
            first, passes[TEACHER] = student, 1 + len(student.config.bounds)
            add(
                INDEPENDENT, 0, made(independent, labels[:rows], noise), timed(independent, student)
            )
            for last in options.last:
                add(f"last {last} independent", *cut(target, student, last, labels[:rows], noise))
        for count, (name, way) in zip(options.steps, ways.items(), strict=True):
            shown = name if len(students) == 1 else f"{label}, {name}"
            add(shown, count, made(way, labels[:rows], noise), timed(way, student))
        for given in options.mixed:
            first_token, last_token = map(int, given.split(":"))
            shown = given if len(students) == 1 else f"{label}, {given}"
            span = first_token, last_token
            add(f"target {shown}", *mixed(target, student, span, labels[:rows], seeds, noise))
    times[TEACHER] = sequential(target, size.num_tokens)
    return judge(
        files,
        Path(reference),
        target=target,
        guidance=1.0,
        device="cpu",
        classifier=options.classifier,
        output=folder / "evaluation",
        ms_per_image=times,
        passes=passes,
    )


def cut(
    target: str, student: Any, last: int, classes: torch.Tensor, noise: torch.Tensor
) -> tuple[int, torch.Tensor, dict[str, float]]:
    """The target's decoding without its `last` tokens: passes, tokens and times."""
    count = noise.shape[1] - last
    tokens = decoded(target, count, len(classes), seed=PREFIXES)
    prior = partial(first_guesses, FlowMap(student.codebook), student.prior)
    rest = made(prior, classes, noise)[:, count:]
    taken = sequential(target, count)
    return count, torch.cat([tokens, rest], dim=1), taken


def mixed(
    target: str,
    student: Any,
    span: tuple[int, int],
    classes: torch.Tensor,
    seeds: Any,
    noise: torch.Tensor,
) -> tuple[int, torch.Tensor, dict[str, float]]:
    """Teacher-mixed sampling: passes, tokens and times."""
    chart, times = FlowMap(student.codebook), dict[str, float]()
    for batch in BATCHES:
        work = Mixed(student, chart, plain(target, batch), *span)
        some = (classes[:batch], seeds[:batch].tolist(), noise[:batch])
        times[str(batch)] = cpu_ms(partial(work.images, *some)) / batch
    cuts = range(BATCH, len(seeds), BATCH)
    owners = [part.tolist() for part in np.split(seeds, cuts)]
    parts = zip(classes.split(BATCH), owners, noise.split(BATCH), strict=True)
    return work.passes(1), torch.cat([work.images(*part) for part in parts]), times


def made(way: Way, classes: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """[N, n] tokens."""
    parts = zip(classes.split(BATCH), noise.split(BATCH), strict=True)
    return torch.cat([way(*part) for part in parts])


def decoded(target: str, num_tokens: int, count: int, *, seed: int) -> torch.Tensor:
    """[count, num_tokens] of the target's images, token by token."""
    loop, asked = plain(target, BATCH), cut_short(target, count, num_tokens, seed)
    found = {result.id: result.tokens for result in loop.run(asked)}
    return torch.tensor([found[request.id] for request in asked])


def plain(target: str, batch_size: int) -> TokenLoop:
    """The target without a drafter."""
    return build_loop(EngineConfig(target=target, batch_size=batch_size, threads=1))


def cut_short(target: str, count: int, num_tokens: int, seed: int) -> list[Request]:
    """Requests for the first tokens of images."""
    sampling = Sampling(max_tokens=num_tokens)
    asked = requests(target, count, turn=0, seed=seed)
    return [
        Request(id=one.id, prompt=one.prompt, sampling=sampling, seed=one.seed) for one in asked
    ]


def sequential(target: str, num_tokens: int) -> dict[str, float]:
    """CPU milliseconds per image by batch size."""
    out = {}
    for batch in BATCHES:
        loop, asked = plain(target, batch), cut_short(target, batch, num_tokens, seed=7)
        out[str(batch)] = cpu_ms(partial(loop.run, asked)) / batch
    return out


def timed(way: Way, student: Any) -> dict[str, float]:
    """CPU milliseconds per image by batch size."""
    config, out = student.config, {}
    for batch in BATCHES:
        classes = torch.arange(batch) % len(student.prior)
        noise = image_noise(np.arange(batch), config.num_tokens, config.code_width)
        out[str(batch)] = cpu_ms(partial(way, classes, noise)) / batch
    return out


def cpu_ms(work: Callable[[], object], repeats: int = 5) -> float:
    """The process's CPU time for `work`, a median."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(1000 * (time.process_time() - began))
    return float(np.median(taken))


def drafted(target: str, students: Mapping[str, str], count: int) -> list[dict[str, Any]]:
    """Passes and CPU time for an image with each drafter, under both noises."""
    drafters = {"none": "none", "jacobi": "jacobi"}
    drafters |= {n: p for n, p in students.items() if isinstance(load_student(p), Student)}
    out = []
    for noise in (FLOW, GUMBEL):
        wanted = None
        for name, drafter in drafters.items():
            line, tokens = draft(target, drafter, noise, count)
            wanted = wanted or tokens
            same = "yes" if tokens == wanted else "no"
            out.append({"noise": noise, "drafter": name, **line, "same images": same})
    return out


def draft(
    target: str, drafter: str, noise: str, count: int
) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """One drafter's figures, and the images' tokens."""
    loop = build_loop(
        EngineConfig(
            target=target,
            drafter=drafter,
            draft_tokens="auto" if drafter == "none" else WINDOW,
            batch_size=1,
            threads=1,
        )
    )
    asked = [
        Request(id=one.id, prompt=one.prompt, sampling=one.sampling, seed=one.seed, noise=noise)
        for one in requests(target, count, turn=0)
    ]
    loop.run(asked[:2])
    loop.reset_figures()
    began = time.process_time()
    found = {result.id: result.tokens for result in loop.run(asked)}
    taken = 1000 * (time.process_time() - began) / count
    figures = loop.figures()
    line = {
        "target passes": f"{figures.target_passes / count:.2f}",
        "student passes": f"{figures.draft_passes / count:.2f}",
        "CPU ms/image": f"{taken:.2f}",
    }
    return line, found


if __name__ == "__main__":
    sys.exit(main())

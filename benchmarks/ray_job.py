"""The section on the whole pipeline: a job of about a minute on Ray against the token loop alone.

The order is bare, Ray, bare, Ray, bare. Each Ray run is compared with the mean of the bare runs
before and after it. Prompts, seeds, engine and threads are the same, and so must be the tokens.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pyarrow.parquet as pq

from actors.tokenizer import TokenizerActor
from benchmarks.processes import Watch
from benchmarks.section import Goal, Section
from benchmarks.work import Setting, Work, make_loop
from models.loop.token_loop import TokenLoop
from pipelines.bench.interleave import Outputs, Run, run_loop, verdicts
from pipelines.bench.recipe import Recipe
from pipelines.generate.config import GenerateConfig
from pipelines.generate.job import generate
from pipelines.generate.reporting.summary import Summary
from pipelines.generate.rows.prompts import Prompt, read_prompts, requests, shortened

GOAL, BATCH, SEED, TURNS = 0.05, 8, 7, 2
OURS = ("driver", "ray::WriterActor", "ray::TokenizerActor")  # titles of processes
HEADS = (
    "run",
    "rows",
    "tokens",
    "seconds",
    "tokens/s",
    "start-up s",
    "round ms",
    "accepted length",
)


def pipeline(work: Work) -> Section:
    """How much longer a job takes as a Ray pipeline, start-up not counted."""
    section = Section(name="pipeline", title="Ray pipeline against the bare token loop")
    texts, work = retold(work)
    setting = Setting(temperature=1.0, batch_size=BATCH)
    loop = make_loop(work, Recipe(drafter=work.draft, draft_tokens=work.chain), setting)
    loop.run(shortened(work.requests(0, 1.0), count=BATCH, max_tokens=16))
    rate = run_loop(loop, work.requests(0, 1.0, at_least=4 * BATCH)).tokens_per_second
    count = max(BATCH, round(work.job_s * rate / work.max_tokens))
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(texts, Path(folder) / "prompts.jsonl", count)
        bares, summaries = [bare(work, loop, path, count)], []
        for turn in range(TURNS):
            config = job(work, str(path), str(Path(folder) / f"rows-{turn}"))
            with Watch() as watch:
                summaries.append(generate(config))
            cores = watch.cores(summaries[-1].seconds)
            bares.append(bare(work, loop, path, count))
        outputs = read_tokens(config.output)
    section.notes += beside(cores)
    _report(section, bares, summaries, outputs)
    return section


def retold(work: Work) -> tuple[list[str], Work]:
    """The prompts as texts, and the work with the tokens of these texts."""
    tokenizer = TokenizerActor(work.target)
    prompts = [prompt for part in work.slices for prompt in part]
    texts = tokenizer.decode_batch([prompt.tokens for prompt in prompts])
    again = [
        Prompt(id=prompt.id, tokens=tuple(tokens))
        for prompt, tokens in zip(prompts, tokenizer.encode_batch(texts), strict=True)
    ]
    return texts, replace(work, slices=(again,))


def write_rows(texts: Sequence[str], path: Path, count: int) -> Path:
    """Write `count` rows: the prompts, repeated as needed, each row with its own id."""
    rows = [{"id": f"row-{i}", "prompt": texts[i % len(texts)]} for i in range(count)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def job(work: Work, source: str, output: str) -> GenerateConfig:
    """The same work as `bare`, as a job."""
    return GenerateConfig(
        target=work.target,
        drafter=work.draft,
        draft_tokens=work.chain,  # a fixed size: both do the same work
        draft_width=1,
        input=source,
        output=output,
        max_tokens=work.max_tokens,
        ignore_eos=True,
        batch_size=BATCH,
        max_length=work.length(),
        threads=work.threads,
        seed=SEED,
    )


def bare(work: Work, loop: TokenLoop, path: Path, count: int) -> Run:
    """The token loop alone."""
    prompts = read_prompts(str(path), checkpoint=work.target, count=count)
    return run_loop(loop, requests(prompts, work.sampling(1.0), seed=SEED))


def read_tokens(output: str) -> dict[str, tuple[int, ...]]:
    """Each row's tokens, under the ids of the bare loop's requests."""
    rows = pq.read_table(output, columns=["id", "tokens"])
    pairs = zip(rows["id"].to_pylist(), rows["tokens"].to_pylist(), strict=True)
    return {f"{name}#0": tuple(tokens) for name, tokens in pairs}


def beside(cores: Mapping[str, float]) -> list[str]:
    """A note on the CPU time of other processes, which delay passes that use all cores."""
    others = {title: share for title, share in cores.items() if "TargetActor" not in title}
    if not others:
        return []
    own = sum(share for title, share in others.items() if title.startswith(OURS))
    total = sum(others.values())
    told = f"{total:.1%} of a core, {own:.1%} of it for Paceline's driver and writer"
    return [f"Besides the target actor, other processes used {told}, the rest for Ray."]


def _report(
    section: Section, bares: Sequence[Run], summaries: Sequence[Summary], outputs: Outputs
) -> None:
    lines = [_cells("bare token loop (1)", bares[0])]
    for i, (summary, after) in enumerate(zip(summaries, bares[1:], strict=True), 1):
        lines += [_ray(f"paceline generate ({i})", summary)]
        lines += [_cells(f"bare token loop ({i + 1})", after)]
    section.put(f"draft model, fixed chain, batch {BATCH}, float32", HEADS, lines)
    same = sum(verdicts(outputs, bares[0].outputs))
    section.notes.append(f"{same} of {len(outputs)} rows have the same tokens in both runs.")
    beside = [(one.seconds + two.seconds) / 2 for one, two in pairwise(bares)]
    each = [s.seconds / bare - 1 for s, bare in zip(summaries, beside, strict=True)]
    times = [run.seconds for run in bares]
    section.goals.append(
        Goal(
            text=f"the pipeline's overhead over the bare token loop, {mean(times):.0f} s",
            goal=GOAL,
            measured=mean(each),
            at_most=True,
            percent=True,
            why=" and ".join(f"{one:.1%}" for one in each)
            + f"; the bare runs took {min(times):.1f} to {max(times):.1f} s; start-up of "
            f"{summaries[-1].startup_seconds:.1f} s not counted",
        )
    )


def _cells(name: str, run: Run) -> list[str]:
    figures = run.figures
    assert figures is not None  # it is our own loop
    rates = [f"{run.seconds:.1f}", f"{run.tokens_per_second:.1f}", "0.0"]
    round_ms = f"{figures.round_ms()['round']:.2f}"
    return [
        name,
        str(len(run.outputs)),
        str(run.tokens),
        *rates,
        round_ms,
        f"{figures.accepted_length:.2f}",
    ]


def _ray(name: str, summary: Summary) -> list[str]:
    return [
        name,
        str(summary.rows),
        str(summary.tokens),
        f"{summary.seconds:.1f}",
        f"{summary.tokens_per_second:.1f}",
        f"{summary.startup_seconds:.1f}",
        f"{summary.round_ms['round']:.2f}",
        f"{summary.accepted_length:.2f}",
    ]

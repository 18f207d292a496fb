"""The section on the whole pipeline: a job of about a minute on Ray against the bare token loop.

Bare, Ray, bare: the mean of the two bare runs is what Ray is measured against. The same prompts,
seeds, engine and threads; the tokens must be the same, too.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from actors.tokenizer import TokenizerActor
from benchmarks.section import Goal, Section
from benchmarks.work import Setting, Work, make_loop
from models.loop import TokenLoop
from pipelines.config import GenerateConfig
from pipelines.generate import generate
from pipelines.interleave import Outputs, Run, run_loop, verdicts
from pipelines.prompts import Prompt, read_prompts, requests, shortened
from pipelines.recipe import Recipe
from pipelines.summary import Summary

GOAL, BATCH, SEED = 0.05, 8, 7
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
    """How much longer a job takes as a Ray pipeline, start-up apart."""
    section = Section(name="pipeline", title="The Ray pipeline against the bare token loop")
    texts, work = retold(work)
    setting = Setting(temperature=1.0, batch_size=BATCH)
    loop = make_loop(work, Recipe(drafter=work.draft, draft_tokens=work.chain), setting)
    loop.run(shortened(work.requests(0, 1.0), count=BATCH, max_tokens=16))
    rate = run_loop(loop, work.requests(0, 1.0, at_least=4 * BATCH)).tokens_per_second
    count = max(BATCH, round(work.job_s * rate / work.max_tokens))
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(texts, Path(folder) / "prompts.jsonl", count)
        first = bare(work, loop, path, count)
        config = job(work, str(path), str(Path(folder) / "rows"))
        summary = generate(config)
        outputs = read_tokens(config.output)
        second = bare(work, loop, path, count)
    _report(section, [first, second], summary, outputs)
    return section


def retold(work: Work) -> tuple[list[str], Work]:
    """The prompts as texts, and the work on what these texts are as tokens."""
    tokenizer = TokenizerActor(work.target)
    prompts = [prompt for part in work.slices for prompt in part]
    texts = tokenizer.decode_batch([prompt.tokens for prompt in prompts])
    again = [
        Prompt(id=prompt.id, tokens=tuple(tokens))
        for prompt, tokens in zip(prompts, tokenizer.encode_batch(texts), strict=True)
    ]
    return texts, replace(work, slices=(again,))


def write_rows(texts: Sequence[str], path: Path, count: int) -> Path:
    """`count` rows: the prompts, over and over, each time under another id."""
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


def _report(section: Section, runs: Sequence[Run], summary: Summary, outputs: Outputs) -> None:
    seconds = sum(run.seconds for run in runs) / len(runs)
    told = [_cells(f"bare token loop ({i})", run) for i, run in enumerate(runs, 1)]
    section.put(
        f"draft model, fixed chain, batch {BATCH}, float32",
        HEADS,
        [told[0], _ray(summary), told[1]],
    )
    same = sum(verdicts(outputs, runs[0].outputs))
    section.notes.append(f"{same} of {len(outputs)} rows have the same tokens both ways.")
    spread = abs(runs[0].seconds - runs[1].seconds) / seconds
    section.goals.append(
        Goal(
            text=f"the pipeline's overhead over the bare token loop, {seconds:.0f} s",
            goal=GOAL,
            measured=summary.seconds / seconds - 1,
            at_most=True,
            percent=True,
            why=f"{summary.seconds:.1f} s against {seconds:.1f} s; the two bare runs differ by "
            f"{spread:.1%}; start-up of {summary.startup_seconds:.1f} s not counted",
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


def _ray(summary: Summary) -> list[str]:
    return [
        "paceline generate",
        str(summary.rows),
        str(summary.tokens),
        f"{summary.seconds:.1f}",
        f"{summary.tokens_per_second:.1f}",
        f"{summary.startup_seconds:.1f}",
        f"{summary.round_ms['round']:.2f}",
        f"{summary.accepted_length:.2f}",
    ]
